//! Where and when a user may come from: networks, hours of the day, ways to connect.

use std::net::IpAddr;

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::claims::{Grants, Window};
use super::token::short;

/// All ways to connect that NATS knows.
const CONNECTION_TYPES: [&str; 7] = [
    "STANDARD",
    "WEBSOCKET",
    "LEAFNODE",
    "LEAFNODE_WS",
    "MQTT",
    "MQTT_WS",
    "IN_PROCESS",
];

/// From where a client comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer {
    /// Its address; none within this process.
    pub ip: Option<IpAddr>,
}

impl Peer {
    fn kind(self) -> &'static str {
        match self.ip {
            Some(_) => "STANDARD",
            None => "IN_PROCESS",
        }
    }
}

/// Whether a user may come from there in that way.
pub(super) fn check_peer(grants: &Grants, peer: Peer) -> Result<(), String> {
    let types = &grants.allowed_connection_types;
    let known = |name: &&String| {
        CONNECTION_TYPES
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
    };
    let named = |name: &&String| name.eq_ignore_ascii_case(peer.kind());
    // With all of them unknown nobody is meant, not everybody.
    if !types.is_empty() && !types.iter().filter(known).any(|name| named(&name)) {
        let kind = peer.kind();
        return Err(format!(
            "connections of type {kind} are not allowed (allowed_connection_types)"
        ));
    }
    if grants.proxy_required {
        return Err("it must come through a proxy, and there are none (proxy_required)".to_owned());
    }
    if grants.src.is_empty() {
        return Ok(());
    }
    let Some(ip) = peer.ip.map(|ip| ip.to_canonical()) else {
        return Err("it has no address that could be in a network (src)".to_owned());
    };
    if grants.src.iter().any(|network| holds(network, ip) == Some(true)) {
        return Ok(());
    }
    Err(format!("{ip} is in none of its networks (src)"))
}

/// Whether networks and hours can be understood.
pub(super) fn check_text(grants: &Grants) -> Result<(), String> {
    let any = IpAddr::from([0, 0, 0, 0]);
    if let Some(bad) = grants.src.iter().find(|network| holds(network, any).is_none()) {
        return Err(format!("\"{}\" is no network (src)", short(bad)));
    }
    let times = grants
        .times
        .iter()
        .flat_map(|window| [&window.start, &window.end]);
    for text in times {
        hour(text)?;
    }
    zone(&grants.times_location).map(drop)
}

/// Whether a network such as `10.0.0.0/8` holds an address; none where it is no network.
fn holds(network: &str, ip: IpAddr) -> Option<bool> {
    let (base, bits) = network.split_once('/')?;
    let bits: u32 = bits.parse().ok()?;
    let bytes = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (base, ip) = (bytes(base.parse().ok()?), bytes(ip));
    if bits > base.len() as u32 * 8 {
        return None;
    }
    let bit = |bytes: &[u8], at: u32| bytes[at as usize / 8] >> (7 - at % 8) & 1;
    Some(base.len() == ip.len() && (0..bits).all(|at| bit(&base, at) == bit(&ip, at)))
}

fn hour(text: &str) -> Result<Time, String> {
    Time::strptime("%H:%M:%S", text).map_err(|_| format!("\"{}\" is no time of a day (times)", short(text)))
}

fn zone(name: &str) -> Result<TimeZone, String> {
    if name.is_empty() {
        return Ok(TimeZone::system());
    }
    TimeZone::get(name).map_err(|_| format!("\"{}\" is no time zone (times_location)", short(name)))
}

/// Until when it may stay, in seconds since 1970, where it may come at certain hours only.
///
/// A window over midnight holds on both sides of it; nats-server forgets the side after.
pub(super) fn window(grants: &Grants, now: Timestamp) -> Result<Option<i64>, String> {
    if grants.times.is_empty() {
        return Ok(None);
    }
    let zone = zone(&grants.times_location)?;
    let local = zone.to_datetime(now);
    for window in &grants.times {
        if let Some(end) = end_of(window, local)? {
            let end = zone.to_timestamp(end).map_err(|error| error.to_string())?;
            return Ok(Some(end.as_second()));
        }
    }
    Err("it may not come at this hour (times)".to_owned())
}

fn end_of(window: &Window, now: DateTime) -> Result<Option<DateTime>, String> {
    let (start, end) = (hour(&window.start)?, hour(&window.end)?);
    let today = now.date();
    let yesterday = today.saturating_sub(1.day());
    for day in [today, yesterday] {
        let ends = if start > end {
            day.saturating_add(1.day())
        } else {
            day
        };
        let (start, end) = (day.to_datetime(start), ends.to_datetime(end));
        if start <= now && now < end {
            return Ok(Some(end));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_addresses() {
        for (network, ip, expected) in [
            ("10.0.0.0/8", "10.1.2.3", Some(true)),
            ("10.0.0.0/8", "11.1.2.3", Some(false)),
            ("10.1.2.3/32", "10.1.2.3", Some(true)),
            ("10.1.2.3/31", "10.1.2.2", Some(true)),
            ("0.0.0.0/0", "8.8.8.8", Some(true)),
            ("::1/128", "::1", Some(true)),
            ("2001:db8::/33", "2001:db8:8000::", Some(false)),
            ("10.0.0.0/8", "::1", Some(false)),
            ("10.0.0.0", "10.0.0.0", None),
            ("10.0.0.0/33", "10.0.0.0", None),
            ("x/8", "10.0.0.0", None),
        ] {
            assert_eq!(holds(network, ip.parse().unwrap()), expected, "{network} {ip}");
        }
    }

    #[test]
    fn hours_of_the_day() {
        let grants = |windows: &[(&str, &str)], zone: &str| Grants {
            times: windows
                .iter()
                .map(|(start, end)| Window {
                    start: (*start).to_owned(),
                    end: (*end).to_owned(),
                })
                .collect(),
            times_location: zone.to_owned(),
            ..Grants::default()
        };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let day = grants(&[("08:00:00", "12:00:00"), ("13:00:00", "17:00:00")], "UTC");
        let until = |grants: &Grants, now: &str| window(grants, at(now)).ok().flatten();
        for (now, end) in [
            ("2026-03-01T08:00:00Z", Some("2026-03-01T12:00:00Z")),
            ("2026-03-01T16:59:59Z", Some("2026-03-01T17:00:00Z")),
            ("2026-03-01T12:00:00Z", None),
            ("2026-03-01T07:59:59Z", None),
        ] {
            assert_eq!(until(&day, now), end.map(|end| at(end).as_second()), "{now}");
        }
        let night = grants(&[("22:00:00", "06:00:00")], "Europe/Berlin");
        for (now, end) in [
            ("2026-01-10T22:00:00Z", Some("2026-01-11T05:00:00Z")),
            ("2026-01-11T02:00:00Z", Some("2026-01-11T05:00:00Z")),
            ("2026-01-11T12:00:00Z", None),
        ] {
            assert_eq!(until(&night, now), end.map(|end| at(end).as_second()), "{now}");
        }
        assert_eq!(window(&Grants::default(), at("2026-01-10T22:00:00Z")), Ok(None));
        for bad in [
            grants(&[("8:00", "12:00:00")], "UTC"),
            grants(&[("08:00:00", "")], "UTC"),
            grants(&[], "Nowhere/At-All"),
        ] {
            assert!(check_text(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ways_to_connect() {
        let grants = |types: &[&str]| Grants {
            allowed_connection_types: types.iter().map(|name| (*name).to_owned()).collect(),
            ..Grants::default()
        };
        let outside = Peer {
            ip: Some([127, 0, 0, 1].into()),
        };
        for (types, from_outside, inside) in [
            (&[][..], true, true),
            (&["standard"], true, false),
            (&["STANDARD", "PIGEON"], true, false),
            (&["IN_PROCESS", "MQTT"], false, true),
            (&["PIGEON"], false, false),
        ] {
            let grants = grants(types);
            assert_eq!(check_peer(&grants, outside).is_ok(), from_outside, "{types:?}");
            assert_eq!(check_peer(&grants, Peer::default()).is_ok(), inside, "{types:?}");
        }
        let here = Grants {
            src: vec!["127.0.0.0/8".to_owned()],
            ..Grants::default()
        };
        assert!(check_peer(&here, outside).is_ok() && check_peer(&here, Peer::default()).is_err());
    }
}
