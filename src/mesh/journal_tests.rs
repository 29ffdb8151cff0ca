use super::*;

const WAIT: Duration = Duration::from_millis(200);

fn pending(seq: u64) -> Pending {
    Pending {
        seq,
        id: format!("i.{seq}"),
        event: "fo_insight".to_owned(),
        subject: "mesh.fo.insight".to_owned(),
        time: "2026-11-23T05:20:01Z".to_owned(),
        session: Some("s".to_owned()),
        parent: None,
        body: format!("{{\"n\":{seq}}}\u{0}\u{fffd}").into_bytes(),
    }
}

#[tokio::test]
async fn what_was_written_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::new(&dir.path().join("deep/er"), "a");
    let mut held = journal.hold(WAIT).await.unwrap();
    let name = held.base().journal.clone();
    held.reserve(pending(1)).unwrap();
    drop(held);

    let mut held = journal.hold(WAIT).await.unwrap();
    assert_eq!(
        (held.base().journal.as_str(), held.base().seq),
        (name.as_str(), 0)
    );
    assert_eq!(held.pending(), Some(&pending(1)));
    held.confirm(70).unwrap();
    held.reserve(pending(2)).unwrap();
    held.free().unwrap();
    drop(held);

    let held = journal.hold(WAIT).await.unwrap();
    assert_eq!(
        *held.base(),
        Base {
            journal: name,
            seq: 1,
            stream_seq: 70,
            spool: None,
        }
    );
    assert_eq!(held.pending(), None);
}

#[tokio::test]
async fn what_was_spooled_stands_until_it_is_imported() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::new(dir.path(), "a");
    let mut held = journal.hold(WAIT).await.unwrap();
    held.reserve(pending(1)).unwrap();
    held.confirm(70).unwrap();
    for (seq, place) in [(2, "x"), (3, "x"), (4, "y")] {
        held.spooling(Path::new(place)).unwrap();
        held.reserve(pending(seq)).unwrap();
        held.spooled().unwrap();
    }
    held.reserve(pending(5)).unwrap();
    drop(held);
    let mut held = journal.hold(WAIT).await.unwrap();
    let spool = Spooled {
        seq: 4,
        repositories: vec!["x".into(), "y".into()],
    };
    assert_eq!((held.base().seq, &held.base().spool), (4, &Some(spool)));
    assert_eq!((held.base().stream_seq, held.pending()), (70, Some(&pending(5))));
    held.free().unwrap();
    held.rewrite().unwrap();
    drop(held);
    let mut held = journal.hold(WAIT).await.unwrap();
    assert_eq!(held.base().spool.as_ref().unwrap().seq, 4);
    held.imported(90).unwrap();
    drop(held);
    let held = journal.hold(WAIT).await.unwrap();
    assert_eq!(
        (held.base().seq, held.base().stream_seq, &held.base().spool),
        (4, 90, &None)
    );
}

#[tokio::test]
async fn one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::new(dir.path(), "a");
    let held = journal.hold(WAIT).await.unwrap();
    let error = journal.hold(Duration::ZERO).await.unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    drop(held);
    journal.hold(WAIT).await.unwrap();
}

/// A power cut may leave any prefix of what was appended since the last sync.
#[tokio::test]
async fn any_torn_end_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::new(dir.path(), "a");
    let mut held = journal.hold(WAIT).await.unwrap();
    held.reserve(pending(1)).unwrap();
    let synced = fs::metadata(&journal.log).unwrap().len() as usize;
    held.confirm(9).unwrap();
    drop(held);
    let whole = fs::read(&journal.log).unwrap();
    for len in synced..=whole.len() {
        fs::write(&journal.log, &whole[..len]).unwrap();
        let mut held = journal.hold(WAIT).await.unwrap();
        if len == whole.len() {
            assert_eq!((held.base().seq, held.pending()), (1, None));
        } else {
            assert_eq!(held.pending(), Some(&pending(1)), "cut at {len}");
            held.confirm(9).unwrap();
        }
        held.reserve(pending(2)).unwrap();
        drop(held);
        let held = journal.hold(WAIT).await.unwrap();
        assert_eq!(
            (held.base().seq, held.pending()),
            (1, Some(&pending(2))),
            "cut at {len}"
        );
    }
}

#[tokio::test]
async fn damage_further_up_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::new(dir.path(), "a");
    let mut held = journal.hold(WAIT).await.unwrap();
    held.reserve(pending(1)).unwrap();
    held.confirm(9).unwrap();
    drop(held);
    let mut text = fs::read(&journal.log).unwrap();
    let second_line = memchr::memchr(b'\n', &text).unwrap() + 30;
    text[second_line] ^= 1;
    fs::write(&journal.log, text).unwrap();
    let error = journal.hold(WAIT).await.unwrap_err().to_string();
    assert!(error.contains("line 2 is damaged"), "{error}");
}

#[tokio::test]
async fn a_long_log_is_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::new(dir.path(), "a");
    let mut held = journal.hold(WAIT).await.unwrap();
    let name = held.base().journal.clone();
    for seq in 1..=400 {
        held.reserve(pending(seq)).unwrap();
        held.confirm(seq * 2).unwrap();
    }
    drop(held);
    assert!(fs::metadata(&journal.log).unwrap().len() > LOG_BYTES_MAX);
    let held = journal.hold(WAIT).await.unwrap();
    assert_eq!(
        *held.base(),
        Base {
            journal: name,
            seq: 400,
            stream_seq: 800,
            spool: None,
        }
    );
    assert!(fs::metadata(&journal.log).unwrap().len() < 200);
}
