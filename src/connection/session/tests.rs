//! Sessions without sockets: whatever comes, however it is split, the answers are the same and nothing grows.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use proptest::prelude::*;

use super::*;
use crate::account::{Accounts, Auth, Login, Traffic, User, Users};
use crate::protocol::info::Info;
use crate::router::{Batch, Client, Closed, Idle, Service, WireBuf};

const PAYLOAD_MAX: usize = 300;
const LINE_MAX: usize = 128;

/// What a session answered, and how it ended if it did.
type Outcome = (String, Option<Reason>);

/// Feeds a session piece by piece, as the reader of a connection does.
fn converse<'a>(auth: Auth, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let options = Options {
        payload_max: PAYLOAD_MAX,
        control_line_max: LINE_MAX,
        ..Options::default()
    };
    let context = Arc::new(Context::new(
        options,
        Accounts::new(auth, &[], None),
        Info::default(),
    ));
    let client = Client::new(1, 64 << 20);
    let handle = Arc::new(Handle::new(client.clone(), "test".into(), 1, &context));
    let mut session = Session::new(context.clone(), handle);
    session.admit_unasked();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut buffer = BytesMut::new();
        let mut end = None;
        for piece in pieces {
            buffer.extend_from_slice(piece);
            if let Err(reason) = feed(&mut session, &mut buffer).await {
                end = Some(reason);
                break;
            }
            let bound = PAYLOAD_MAX + LINE_MAX + VERB_MAX + 4;
            assert!(buffer.len() <= bound, "{} bytes are kept", buffer.len());
        }
        if let Some(reason) = end {
            session.refuse(reason);
        }
        drop(session);
        context.accounts.global().router.remove_client(&client);
        assert_eq!(context.accounts.global().router.stats().subscriptions, 0);
        client.outbox.close(Closed::Done);
        let (mut out, mut wire) = (Vec::new(), WireBuf::default());
        while client
            .outbox
            .take(&mut wire, &mut Idle::default())
            .await
            .is_some()
        {
            let mut cursor = wire.cursor();
            while cursor.has_remaining() {
                let chunk = cursor.chunk().to_vec();
                cursor.advance(chunk.len());
                out.extend(chunk);
            }
        }
        (out.escape_ascii().to_string(), end)
    })
}

async fn feed(session: &mut Session, buffer: &mut BytesMut) -> Result<(), Reason> {
    loop {
        let outcome = session.process(buffer);
        session.settle().await;
        match outcome? {
            Pause::Drained => return Ok(()),
            Pause::Turn => {}
            Pause::Left => session.take_leave().await,
            Pause::Plain(line) => session.run_plain(line).await,
            Pause::Verify(pending) => session.verify(*pending).await?,
        }
    }
}

const SCRIPT: &[u8] = b"CONNECT {\"headers\":true,\"no_responders\":true,\"protocol\":1}\r\nPING\r\n\
    SUB a.* 1\r\nsub a.b q 2\nSUB \t r  3 \r\nPUB a.b 5\r\nhello\r\nPUB a.b 5\r\nhello\r\nPUB a.b\tr\t0\n\r\n\
    HPUB a.c 12 14\r\nNATS/1.0\r\n\r\nhi\r\nPUB nobody r 2\r\nhi\r\nUNSUB 1 5\r\nPUB a.b 1\n\n\nPUB a.x 4\r\n\r\n\r\n\r\n\
    UNSUB 2\r\nPUB a..b 2\r\nxx\r\nPUB x _R_.y 0\r\n\r\nPONG\r\nHELP say\r\nSAY r typed text\nASK nobody hi\r\n\
    say r\r\nPUB r 6\r\nPING\r\n\r\nPING\r\nSUB b..c 9\r\n+OK\r\nPING\r\nPUB r 301\r\n";

#[test]
fn every_split_in_two_gives_the_same() {
    let whole = converse(Auth::Open, [SCRIPT]);
    assert_eq!(whole.1, Some(Reason::PayloadExceeded));
    assert_eq!(whole.0.matches("MSG").count(), 13, "{}", whole.0);
    for at in 0..=SCRIPT.len() {
        let (left, right) = SCRIPT.split_at(at);
        assert_eq!(converse(Auth::Open, [left, right]), whole, "split at {at}");
    }
    assert_eq!(converse(Auth::Open, SCRIPT.chunks(1)), whole, "byte by byte");
}

/// Whole operations, good and bad, and garbage.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let lines = prop::sample::select(vec![
        "PING\r\n",
        "PONG\n",
        "SUB a 1\r\n",
        "SUB a.> 2\r\n",
        "SUB a q 3\r\n",
        "SUB a..b 4\r\n",
        "UNSUB 1\r\n",
        "UNSUB 2 2\r\n",
        "PUB a 2\r\nhi\r\n",
        "PUB a 2\r\nhi\n",
        "PUB a.b a 2\r\nhi\r\n",
        "PUB none a 0\r\n\r\n",
        "HPUB a 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
        "CONNECT {\"headers\":true,\"no_responders\":true,\"verbose\":false}\r\n",
        "CONNECT {\"auth_token\":\"t\"}\r\n",
        "CONNECT {\"echo\":false}\r\n",
        "HELP ask\r\n",
        "SAY a text\r\n",
        "+OK\r\n",
        "INFO {}\r\n",
    ]);
    let sizes = (0usize..400, 0usize..400)
        .prop_map(|(declared, sent)| format!("PUB a {declared}\r\n{}\r\n", "x".repeat(sent)));
    let long = (1usize..200, 0usize..200)
        .prop_map(|(blanks, letters)| format!("SUB{}{} 7\r\n", " ".repeat(blanks), "s".repeat(letters)));
    prop_oneof![
        20 => lines.prop_map(|line| line.as_bytes().to_vec()),
        3 => sizes.prop_map(String::into_bytes),
        2 => long.prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => "[A-Za-z+-]{1,12}[ \t]?[a-z0-9 ]{0,150}\r?\n".prop_map(String::into_bytes),
    ]
}

/// A session that is let in, and its client.
fn session() -> (Session, Arc<Client>) {
    let accounts = Accounts::new(Auth::Open, &[], None);
    let context = Arc::new(Context::new(Options::default(), accounts, Info::default()));
    let client = Client::new(1, 64 << 20);
    let handle = Arc::new(Handle::new(client.clone(), "test".into(), 1, &context));
    let mut session = Session::new(context, handle);
    session.admit_unasked();
    (session, client)
}

/// Counts what it gets.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Service for Counting {
    fn accept(&self, batch: Batch) {
        self.0.fetch_add(batch.len(), Ordering::Relaxed);
    }
}

#[tokio::test]
async fn many_deliveries_are_made_in_turns() {
    const SUBSCRIPTIONS: usize = 4000;
    const MESSAGES: usize = 60;
    let (mut session, _) = session();
    let counting = Arc::new(Counting::default());
    let service: Arc<dyn Service> = counting.clone();
    for _ in 0..SUBSCRIPTIONS {
        session.account.router.subscribe_service(&service, b"a", None);
    }
    let mut buffer = BytesMut::from("CONNECT {\"verbose\":false}\r\n");
    buffer.extend_from_slice("PUB a 0\r\n\r\n".repeat(MESSAGES).as_bytes());
    let (mut turns, mut before) = (0, 0);
    while let Pause::Turn = session.process(&mut buffer).unwrap() {
        session.settle().await;
        turns += 1;
        let delivered = counting.0.load(Ordering::Relaxed);
        assert!(
            delivered - before <= 20 * SUBSCRIPTIONS,
            "{delivered} after {before}"
        );
        before = delivered;
    }
    session.settle().await;
    assert!(turns >= 3 && buffer.is_empty(), "{turns}");
    assert_eq!(counting.0.load(Ordering::Relaxed), SUBSCRIPTIONS * MESSAGES);
}

#[tokio::test]
async fn a_ping_after_leaving_a_group_waits_for_what_others_have_in_hand() {
    let (mut session, client) = session();
    let mut other = Publisher::new(session.account.router.clone());
    let mut buffer = BytesMut::from("CONNECT {\"verbose\":false}\r\nSUB a q 1\r\nPING\r\nSUB b 2\r\n");
    assert!(matches!(session.process(&mut buffer), Ok(Pause::Drained)));
    let message = Message {
        subject: b"a",
        payload: b"x",
        ..Message::default()
    };
    assert_eq!(other.publish(&message, None), 1);
    buffer.extend_from_slice(b"UNSUB 1\r\nUNSUB 2\r\nPING\r\nPING\r\n");
    assert!(matches!(session.process(&mut buffer), Ok(Pause::Left)));
    session.settle().await;
    {
        let leaving = session.take_leave();
        tokio::pin!(leaving);
        assert!(futures_util::poll!(leaving.as_mut()).is_pending());
        other.flush();
        leaving.await;
    }
    // The second has nothing to wait for.
    assert!(matches!(session.process(&mut buffer), Ok(Pause::Drained)));
    session.settle().await;
    client.outbox.close(Closed::Done);
    let mut wire = WireBuf::default();
    client.outbox.take(&mut wire, &mut Idle::default()).await;
    let expected = "PONG\r\nMSG a 1 1\r\nx\r\nPONG\r\nPONG\r\n";
    assert_eq!(
        wire.flat().escape_ascii().to_string(),
        expected.as_bytes().escape_ascii().to_string()
    );
}

#[test]
fn who_is_told_that_nobody_listens_gets_the_subject_as_it_was() {
    let script = b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB r 1\r\nPUB \xff\xfe r 0\r\n\r\n";
    let (out, _) = converse(Auth::Open, [&script[..]]);
    assert!(out.contains(r"Nats-Subject: \xff\xfe\r\n\r\n"), "{out}");
}

#[test]
fn what_somebody_by_default_has_subscribed_to_ends_when_it_says_who_it_is() {
    let mut users = Users::default();
    for name in ["guest", "named"] {
        users.add(User {
            name: name.to_owned(),
            login: Login::Password("p".to_owned()),
            permissions: None,
            account: crate::account::GLOBAL.into(),
            rule: String::new(),
        });
    }
    assert!(users.set_default("guest"));
    let talk =
        "SUB a 1\r\nPUB a 3\r\none\r\nCONNECT {\"user\":\"named\",\"pass\":\"p\"}\r\nPUB a 3\r\ntwo\r\n";
    for (auth, still) in [(Auth::Open, true), (Auth::Users(Arc::new(users)), false)] {
        let (said, end) = converse(auth, [talk.as_bytes()]);
        assert_eq!(end, None, "{said}");
        assert!(said.contains("MSG a 1 3\\r\\none"), "{said}");
        assert_eq!(said.contains("MSG a 1 3\\r\\ntwo"), still, "{said}");
    }
}

#[tokio::test]
async fn what_a_client_has_sent_and_got_is_of_the_account_it_was_in() {
    let specs = ["A", "B"].map(crate::account::Spec::new);
    let mut users = Users::default();
    for account in ["A", "B"] {
        users.add(User {
            name: account.to_lowercase(),
            login: Login::Password("p".to_owned()),
            permissions: None,
            account: account.into(),
            rule: String::new(),
        });
    }
    let accounts = Accounts::new(Auth::Users(Arc::new(users)), &specs, None);
    let context = Arc::new(Context::new(Options::default(), accounts, Info::default()));
    let client = Client::new(1, 64 << 20);
    let handle = Arc::new(Handle::new(client, "test".into(), 1, &context));
    let mut session = Session::new(context.clone(), handle.clone());
    session.admit_unasked();
    let mut buffer = BytesMut::from(
        "CONNECT {\"user\":\"a\",\"pass\":\"p\"}\r\nSUB x 1\r\nPUB x 3\r\none\r\nPUB x 2\r\nhi\r\n\
         CONNECT {\"user\":\"b\",\"pass\":\"p\"}\r\nPUB x 4\r\nmore\r\n",
    );
    feed(&mut session, &mut buffer).await.unwrap();
    let account = |name: &str| context.accounts.get(name).unwrap();
    let traffic = |(in_msgs, in_bytes), (out_msgs, out_bytes)| Traffic {
        in_msgs,
        in_bytes,
        out_msgs,
        out_bytes,
    };
    let (first, second) = (traffic((2, 5), (2, 5)), traffic((1, 4), (0, 0)));
    let (at, booked) = handle.booked();
    assert_eq!((&**at.name(), booked), ("B", second));
    assert_eq!(
        (account("A").past(), account("B").past()),
        (first, traffic((0, 0), (0, 0)))
    );
    handle.leave();
    assert_eq!((account("A").past(), account("B").past()), (first, second));
    assert_eq!(handle.booked().1, traffic((0, 0), (0, 0)));
}

proptest! {
    /// Splits change nothing, and what waits in the buffer stays bounded.
    #[test]
    fn any_split_gives_the_same(
        fragments in prop::collection::vec(fragment(), 1..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        guarded in any::<bool>(),
    ) {
        let bytes = fragments.concat();
        let auth = || if guarded { Auth::Token("t".into()) } else { Auth::Open };
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
        prop_assert_eq!(converse(auth(), pieces), converse(auth(), [&bytes[..]]));
    }

    /// Bytes without any sense end a session or wait for more; nothing panics.
    #[test]
    fn garbage_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        converse(Auth::Open, [&bytes[..]]);
    }
}
