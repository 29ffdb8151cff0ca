//! What is wired and what is not, as requests and messages find out.

use std::sync::Mutex;
use std::time::Duration;

use super::super::{Accounts, Auth, Response};
use super::*;
use crate::protocol::encode::Message;
use crate::router::{Batch, Publisher};

use Kind::{Service as Ask, Stream};

fn export(kind: Kind, subject: &str) -> Export {
    Export {
        kind,
        subject: subject.to_owned(),
        accounts: None,
        token_required: false,
        account_token_position: 0,
        response: Response::Stream,
        threshold: Duration::from_secs(60),
        rule: "accounts.conf:1:1".to_owned(),
    }
}

fn import(kind: Kind, account: &str, subject: &str, to: Option<&str>) -> Import {
    Import {
        kind,
        account: account.into(),
        subject: subject.to_owned(),
        to: to.map(str::to_owned),
        share: false,
        activated: false,
        rule: "accounts.conf:2:1".to_owned(),
    }
}

fn account(name: &str, exports: &[Export], imports: &[Import]) -> Spec {
    Spec {
        exports: exports.to_vec(),
        imports: imports.to_vec(),
        ..Spec::new(name)
    }
}

/// Notes subjects and replies.
#[derive(Default)]
struct Room(Mutex<Vec<(String, String)>>);

impl Room {
    fn on(accounts: &Accounts, account: &str, pattern: &str) -> Arc<Self> {
        let room = Arc::new(Self::default());
        let service: Arc<dyn Service> = room.clone();
        let account = accounts.get(account).unwrap();
        account
            .router
            .subscribe_service(&service, pattern.as_bytes(), None);
        room
    }

    fn heard(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap().clone()
    }
}

impl Service for Room {
    fn accept(&self, batch: Batch) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let heard = batch
            .iter()
            .map(|message| (text(message.subject), text(message.reply)));
        self.0.lock().unwrap().extend(heard);
    }
}

fn publish(accounts: &Accounts, account: &str, to: &str, reply: &str) {
    let mut publisher = Publisher::new(accounts.get(account).unwrap().router.clone());
    publisher.publish(
        &Message {
            subject: to.as_bytes(),
            reply: reply.as_bytes(),
            ..Message::default()
        },
        None,
    );
    publisher.flush();
}

/// How many bridges there are, and how many that others have replaced.
fn bridges(accounts: &Accounts) -> (usize, usize) {
    let wiring = accounts.wiring.lock().unwrap();
    (wiring.bridges.len(), wiring.retired.len())
}

#[test]
fn imports_that_lead_around_in_circles_are_left_out() {
    let all = [
        // Itself, whole and in part.
        account("SELF", &[export(Ask, "svc")], &[import(Ask, "SELF", "svc", None)]),
        account(
            "PART",
            &[export(Ask, "p.>")],
            &[import(Ask, "PART", "p.*.x", Some("p.x.*"))],
        ),
        // Each other.
        account("A", &[export(Ask, "x")], &[import(Ask, "B", "x", None)]),
        account("B", &[export(Ask, "x")], &[import(Ask, "A", "x", None)]),
        // No circle, nor what comes from one.
        account("C", &[], &[import(Ask, "A", "x", Some("my.x"))]),
        account("D", &[export(Ask, "d")], &[import(Ask, "D", "d", Some("mine"))]),
    ];
    let accounts = Accounts::new(Auth::default(), &all, None);
    let rooms = [("SELF", "svc"), ("PART", "p.x.x"), ("A", "x"), ("B", "x")];
    for (name, subject) in rooms {
        let room = Room::on(&accounts, name, subject);
        publish(&accounts, name, subject, "inbox");
        assert_eq!(room.heard().len(), 1, "{name}");
    }
    let room = Room::on(&accounts, "D", "d");
    publish(&accounts, "D", "mine", "inbox");
    assert_eq!(room.heard().len(), 1);
    // One half of the circle, and the two others.
    assert_eq!(bridges(&accounts).0, 3);
}

#[test]
fn streams_in_circles_and_imports_that_are_there_twice_count_once() {
    let twice = import(Ask, "A", "svc", None);
    let all = [
        account(
            "A",
            &[export(Ask, "svc"), export(Stream, "ev")],
            &[import(Stream, "A", "ev", None)],
        ),
        account("B", &[], &[twice.clone(), twice]),
    ];
    let accounts = Accounts::new(Auth::default(), &all, None);
    let (served, events) = (Room::on(&accounts, "A", "svc"), Room::on(&accounts, "A", "ev"));
    publish(&accounts, "B", "svc", "inbox");
    publish(&accounts, "A", "ev", "");
    assert_eq!((served.heard().len(), events.heard().len()), (1, 1));
}

#[test]
fn a_line_more_in_the_file_leaves_bridges_as_they_are() {
    let specs = |line: usize, threshold: u64| {
        let mut out = export(Ask, "svc");
        out.threshold = Duration::from_secs(threshold);
        out.rule = format!("accounts.conf:{line}:1");
        let mut taken = import(Ask, "A", "svc", None);
        taken.rule = format!("accounts.conf:{}:1", line + 5);
        [account("A", &[out], &[]), account("B", &[], &[taken])]
    };
    let accounts = Accounts::new(Auth::default(), &specs(1, 60), None);
    let bridge = || accounts.wiring.lock().unwrap().bridges[0].bridge.clone();
    let (room, inbox) = (Room::on(&accounts, "A", "svc"), Room::on(&accounts, "B", "inbox"));
    let first = bridge();
    publish(&accounts, "B", "svc", "inbox");
    accounts.apply(Auth::default(), &specs(2, 60), None);
    assert!(Arc::ptr_eq(&first, &bridge()));
    // What has really changed is another bridge; who waits on the old one is answered.
    accounts.apply(Auth::default(), &specs(2, 30), None);
    assert!(!Arc::ptr_eq(&first, &bridge()));
    publish(&accounts, "B", "svc", "inbox");
    assert_eq!(room.heard().len(), 2);
    publish(&accounts, "A", &room.heard()[0].1, "");
    assert_eq!(inbox.heard().len(), 1);
    assert_eq!(bridges(&accounts), (1, 1));
    accounts.sweep();
    assert_eq!(bridges(&accounts), (1, 1));
    accounts
        .wiring
        .lock()
        .unwrap()
        .sweep(Instant::now() + Duration::from_secs(60));
    assert_eq!(bridges(&accounts), (1, 0));
    publish(&accounts, "A", &room.heard()[0].1, "");
    assert_eq!(inbox.heard().len(), 1);
}

#[test]
fn what_is_no_longer_imported_is_not_answered() {
    let exporter = account("A", &[export(Ask, "svc")], &[]);
    let importer = account("B", &[], &[import(Ask, "A", "svc", None)]);
    let accounts = Accounts::new(Auth::default(), &[exporter.clone(), importer], None);
    let (room, inbox) = (Room::on(&accounts, "A", "svc"), Room::on(&accounts, "B", "inbox"));
    publish(&accounts, "B", "svc", "inbox");
    accounts.apply(Auth::default(), &[exporter, account("B", &[], &[])], None);
    publish(&accounts, "A", &room.heard()[0].1, "");
    publish(&accounts, "B", "svc", "inbox");
    assert_eq!((room.heard().len(), inbox.heard().len()), (1, 0));
    assert_eq!(bridges(&accounts), (0, 0));
}

#[test]
fn routers_end_with_their_accounts() {
    let all = [
        account("A", &[export(Ask, "svc"), export(Stream, "ev")], &[]),
        account(
            "B",
            &[],
            &[import(Ask, "A", "svc", None), import(Stream, "A", "ev", None)],
        ),
    ];
    let accounts = Accounts::new(Auth::default(), &all, None);
    let room = Room::on(&accounts, "A", "svc");
    publish(&accounts, "B", "svc", "inbox");
    assert_eq!(room.heard().len(), 1);
    let routers = ["A", "B"].map(|name| Arc::downgrade(&accounts.get(name).unwrap().router));
    drop(accounts);
    assert!(routers.iter().all(|router| router.upgrade().is_none()));
}
