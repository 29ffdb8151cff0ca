use super::*;

#[test]
fn medians_are_the_middle() {
    let cases: [(&[f64], Option<f64>); 4] = [
        (&[], None),
        (&[3.0], Some(3.0)),
        (&[9.0, 1.0, 2.0], Some(2.0)),
        (&[4.0, 1.0, 2.0, 100.0], Some(3.0)),
    ];
    for (values, expected) in cases {
        assert_eq!(median(values.to_vec()), expected);
    }
}

#[test]
fn ratios_are_of_pairs_and_above_one_where_ours_is_better() {
    let run = |rate, cpu| {
        vec![
            Reading::more("rate", "msg/s", rate),
            Reading::less("cpu", "us/msg", cpu),
        ]
    };
    let ours = [run(400.0, 1.0), run(200.0, 2.0), run(900.0, 1.0)];
    let theirs = [run(100.0, 4.0), run(100.0, 4.0), run(100.0, 9.0)];
    let figures = figures(&ours, &theirs);
    let ratios: Vec<_> = figures
        .iter()
        .map(|figure| (figure.name, figure.ours, figure.theirs, figure.ratio))
        .collect();
    assert_eq!(
        ratios,
        [
            ("rate", 400.0, Some(100.0), Some(4.0)),
            ("cpu", 1.0, Some(4.0), Some(4.0))
        ]
    );
}

#[test]
fn a_server_alone_has_no_ratio() {
    let figures = figures(&[vec![Reading::more("rate", "msg/s", 7.0)]], &[]);
    assert_eq!(
        (figures[0].ours, figures[0].theirs, figures[0].ratio),
        (7.0, None, None)
    );
    let json = serde_json::to_string(&figures).unwrap();
    assert_eq!(
        json,
        r#"[{"name":"rate","unit":"msg/s","ours":7.0,"ours_runs":[7.0]}]"#
    );
}

#[test]
fn numbers_show_what_matters() {
    let cases = [
        (0.1234, "0.123"),
        (12.34, "12.3"),
        (999.4, "999.4"),
        (1234567.8, "1,234,568"),
        (f64::NAN, "-"),
    ];
    for (value, expected) in cases {
        assert_eq!(number(value), expected);
    }
}
