use super::*;

#[test]
fn durations_are_read() {
    for (text, expected) in [
        ("5", Duration::from_secs(5)),
        ("0.5", Duration::from_millis(500)),
        ("250ms", Duration::from_millis(250)),
        ("1.5h", Duration::from_secs(5_400)),
        ("1d3h5m2s", Duration::from_secs(86_400 + 3 * 3_600 + 5 * 60 + 2)),
        ("1w", Duration::from_secs(604_800)),
        ("7µs", Duration::from_micros(7)),
    ] {
        assert_eq!(duration(text), Ok(expected), "{text}");
    }
    for text in ["", "h", "1x", "-1s", "1h30", "99999y", "1..2s", "nan"] {
        assert!(duration(text).is_err(), "{text}");
    }
}

#[test]
fn sizes_are_read() {
    for (text, expected) in [
        ("0", 0),
        ("1024", 1_024),
        ("12B", 12),
        ("64K", 65_536),
        ("64KB", 65_536),
        ("1.5MiB", 1_572_864),
        ("1G", 1 << 30),
        ("-1", -1),
        ("unlimited", -1),
    ] {
        assert_eq!(bytes(text), Ok(expected), "{text}");
    }
    for text in ["", "K", "1Q", "1KX", "-2", "999999P", "5i"] {
        assert!(bytes(text).is_err(), "{text}");
    }
}

#[test]
fn durations_are_shown() {
    for (duration, expected) in [
        (Duration::ZERO, "0s"),
        (Duration::from_nanos(900), "900ns"),
        (Duration::from_micros(412), "412µs"),
        (Duration::from_micros(53_120), "53.12ms"),
        (Duration::from_millis(100), "100ms"),
        (Duration::from_millis(1_500), "1.50s"),
        (Duration::from_secs(30), "30s"),
        (Duration::from_secs(120), "2m0s"),
        (Duration::from_secs(3_600), "1h0m0s"),
        (Duration::from_secs(93_784), "1d2h3m4s"),
    ] {
        assert_eq!(show_duration(duration), expected);
    }
}

#[test]
fn sizes_and_counts_are_shown() {
    for (bytes, expected) in [
        (0, "0 B"),
        (1_023, "1023 B"),
        (1_229, "1.2 KiB"),
        (10 << 20, "10 MiB"),
        (3 << 30, "3.0 GiB"),
    ] {
        assert_eq!(show_bytes(bytes), expected);
    }
    for (count, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
        assert_eq!(show_count(count), expected);
    }
}

#[test]
fn points_in_time_are_read() {
    let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    assert_eq!(
        instant("1h", now, Direction::Back),
        Ok(at("2026-01-31T11:00:00Z"))
    );
    assert_eq!(
        instant("1h", now, Direction::Ahead),
        Ok(at("2026-01-31T13:00:00Z"))
    );
    assert_eq!(
        instant("2026-02-01T00:00:00Z", now, Direction::Back),
        Ok(at("2026-02-01T00:00:00Z"))
    );
    assert!(instant("2026-02-01 00:00:00", now, Direction::Back).is_ok());
    assert!(instant("tomorrow", now, Direction::Back).is_err());
}

#[test]
fn the_zero_time_is_never() {
    let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
    assert_eq!(show_since(None, now), "never");
    assert_eq!(show_since("0001-01-01T00:00:00Z".parse().ok(), now), "never");
    assert_eq!(show_since("2026-01-31T11:59:30Z".parse().ok(), now), "30s");
}
