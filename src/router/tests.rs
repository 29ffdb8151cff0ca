use std::sync::Mutex;

use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::protocol::encode::Message;
use crate::protocol::subject;

fn message<'a>(subject: &'a str, payload: &'a str) -> Message<'a> {
    Message {
        subject: subject.as_bytes(),
        payload: payload.as_bytes(),
        ..Message::default()
    }
}

/// What waits in a client's outbox, as text.
async fn received(client: &Client) -> String {
    client.outbox.close(Closed::Done);
    let mut all = Vec::new();
    let mut wire = WireBuf::default();
    while client
        .outbox
        .take(&mut wire, &mut Idle::default())
        .await
        .is_some()
    {
        all.extend_from_slice(wire.flat());
    }
    String::from_utf8(all).unwrap()
}

fn router_and_client() -> (Arc<Router>, Arc<Client>) {
    (Arc::new(Router::new()), Client::new(1, 1 << 20))
}

#[tokio::test]
async fn delivers_in_order_and_own_words_last() {
    let (router, client) = router_and_client();
    router.subscribe(&client, b"1", b"a.*", None);
    router.subscribe(&client, b"1", b"ignored", None);
    let mut publisher = Publisher::of_client(router.clone(), client.clone());
    assert_eq!(publisher.publish(&message("a.b", "x"), None), 1);
    assert_eq!(publisher.publish(&message("ignored", "x"), None), 0);
    publisher.own().extend_from_slice(b"PONG\r\n");
    publisher.publish(&message("a.c", "y"), None);
    publisher.flush();
    assert_eq!(
        received(&client).await,
        "MSG a.b 1 1\r\nx\r\nPONG\r\nMSG a.c 1 1\r\ny\r\n"
    );
}

#[tokio::test]
async fn what_is_published_once_goes_where_the_rest_goes() {
    let (router, client) = router_and_client();
    router.subscribe(&client, b"1", b"a.*", None);
    let mut publisher = Publisher::new(router.clone());
    for n in 0..3 {
        let to = format!("a.{n}");
        // The second of each is answered by what the first has left.
        assert_eq!(publisher.publish_once(&message(&to, "o")), 1);
        assert_eq!(publisher.publish_once(&message(&to, "o")), 1);
        assert_eq!(publisher.publish(&message(&to, "p"), None), 1);
    }
    router.unsubscribe(&client, b"1", None);
    assert_eq!(publisher.publish_once(&message("a.2", "o")), 0);
    router.subscribe(&client, b"2", b"a.2", None);
    assert_eq!(publisher.publish_once(&message("a.2", "o")), 1);
    publisher.flush();
    let text = received(&client).await;
    let told: Vec<_> = text
        .split("\r\n")
        .filter(|line| line.starts_with("MSG"))
        .collect();
    let three = |n: u32| vec![format!("MSG a.{n} 1 1"); 3];
    let mut expected: Vec<_> = (0..3).flat_map(three).collect();
    expected.push("MSG a.2 2 1".to_owned());
    assert_eq!(told, expected);
}

#[tokio::test]
async fn limits_count_from_the_subscription() {
    let (router, client) = router_and_client();
    router.subscribe(&client, b"1", b"a", None);
    let mut publisher = Publisher::new(router.clone());
    publisher.publish(&message("a", "1"), None);
    publisher.settle();
    router.unsubscribe(&client, b"1", Some(3));
    for text in ["2", "3", "4"] {
        publisher.publish(&message("a", text), None);
    }
    publisher.flush();
    assert_eq!(router.stats().subscriptions, 0);
    assert_eq!(received(&client).await.matches("MSG").count(), 3);
}

#[tokio::test]
async fn a_limit_already_reached_ends_it_at_once() {
    let (router, client) = router_and_client();
    router.subscribe(&client, b"1", b"a", None);
    let mut publisher = Publisher::new(router.clone());
    publisher.publish(&message("a", "1"), None);
    publisher.flush();
    router.unsubscribe(&client, b"1", Some(1));
    assert_eq!(publisher.publish(&message("a", "2"), None), 0);
    assert_eq!(client.subscription_count(), 0);
}

#[tokio::test]
async fn a_limit_set_while_deliveries_are_in_hand_ends_it() {
    let (router, client) = router_and_client();
    router.subscribe(&client, b"1", b"a", None);
    router.subscribe(&client, b"2", b"a", None);
    let mut publisher = Publisher::new(router.clone());
    for text in ["1", "2", "3"] {
        publisher.publish(&message("a", text), None);
    }
    // By the client's own connection, which knows nothing of what is in hand.
    router.unsubscribe(&client, b"1", Some(2));
    router.unsubscribe(&client, b"2", Some(4));
    assert_eq!(publisher.publish(&message("a", "4"), None), 1);
    assert_eq!(publisher.publish(&message("a", "5"), None), 0);
    publisher.flush();
    assert_eq!(client.subscription_count(), 0);
    assert!(!router.has_interest(b"a"));
    let text = received(&client).await;
    assert_eq!(
        (text.matches("MSG a 1").count(), text.matches("MSG a 2").count()),
        (3, 4)
    );
}

#[tokio::test]
async fn who_leaves_a_group_can_know_when_nothing_more_comes() {
    let (ours, theirs) = (Arc::new(Router::new()), Arc::new(Router::new()));
    let rename = crate::protocol::transform::Transform::new("far", "far").unwrap();
    ours.set_imports(vec![Import::new(&theirs, rename).unwrap()]);
    for (router, to) in [(&ours, "near"), (&theirs, "far")] {
        let (leaver, stayer) = (Client::new(1, 1 << 20), Client::new(2, 1 << 20));
        ours.subscribe(&leaver, b"1", to.as_bytes(), Some(b"q"));
        ours.subscribe(&stayer, b"1", to.as_bytes(), Some(b"q"));
        let mut publisher = Publisher::new(router.clone());
        for _ in 0..100 {
            assert_eq!(publisher.publish(&message(to, "x"), None), 1);
        }
        assert!(ours.unsubscribe(&leaver, b"1", None), "it has left a group");
        let settled = ours.settled();
        tokio::pin!(settled);
        assert!(futures_util::poll!(settled.as_mut()).is_pending(), "{to}");
        publisher.flush();
        settled.await;
        for _ in 0..100 {
            assert_eq!(publisher.publish(&message(to, "x"), None), 1);
        }
        let left = received(&leaver).await.matches("MSG").count();
        publisher.flush();
        assert_eq!(left + received(&stayer).await.matches("MSG").count(), 200);
        assert!((1..=99).contains(&left), "{left}");
        ours.remove_client(&stayer);
    }
    assert!(!ours.unsubscribe(&Client::new(3, 1), b"1", None));
}

#[tokio::test]
async fn groups_of_one_name_get_one_copy() {
    let router = Arc::new(Router::new());
    let clients: Vec<_> = (1..=3).map(|id| Client::new(id, 1 << 20)).collect();
    router.subscribe(&clients[0], b"1", b"a.b", Some(b"q"));
    router.subscribe(&clients[1], b"1", b"a.*", Some(b"q"));
    router.subscribe(&clients[2], b"1", b"a.>", Some(b"other"));
    let mut publisher = Publisher::new(router.clone());
    for _ in 0..200 {
        assert_eq!(publisher.publish(&message("a.b", ""), None), 2);
    }
    publisher.flush();
    let mut counts = Vec::new();
    for client in &clients {
        counts.push(received(client).await.matches("MSG").count());
    }
    assert_eq!(counts[0] + counts[1], 200);
    assert!(counts[0] > 20 && counts[1] > 20, "spread: {counts:?}");
    assert_eq!(counts[2], 200);
}

#[tokio::test]
async fn echo_off_leaves_out_ones_own() {
    let (router, client) = router_and_client();
    router.subscribe(&client, b"1", b"a", None);
    let mut publisher = Publisher::of_client(router.clone(), client.clone());
    assert_eq!(publisher.publish(&message("a", ""), None), 1);
    publisher.set_echo(false);
    assert_eq!(publisher.publish(&message("a", ""), None), 0);
    publisher.flush();
    assert!(publisher.deliver_to_self(b"a", &message("a", "")));
    assert!(!publisher.deliver_to_self(b"b", &message("b", "")));
}

#[tokio::test]
async fn headers_are_stripped_for_those_without() {
    let (router, client) = router_and_client();
    router.subscribe(&client, b"1", b"a", None);
    let mut publisher = Publisher::new(router.clone());
    let with = Message {
        headers: b"NATS/1.0\r\n\r\n",
        ..message("a", "x")
    };
    publisher.publish(&with, None);
    client.set_headers(true);
    publisher.publish(&with, None);
    publisher.flush();
    assert_eq!(
        received(&client).await,
        "MSG a 1 1\r\nx\r\nHMSG a 1 12 13\r\nNATS/1.0\r\n\r\nx\r\n"
    );
}

#[tokio::test]
async fn slow_consumer_is_closed_and_forgotten() {
    let router = Arc::new(Router::new());
    let client = Client::new(1, 1000);
    router.subscribe(&client, b"1", b"a", None);
    let mut publisher = Publisher::new(router.clone());
    let payload = "x".repeat(400);
    publisher.publish(&message("a", &payload), None);
    publisher.flush();
    assert_eq!(client.outbox.closed(), None);
    for _ in 0..3 {
        publisher.publish(&message("a", &payload), None);
    }
    publisher.flush();
    assert_eq!(client.outbox.closed(), Some(Closed::SlowConsumer));
    assert!(
        client
            .outbox
            .take(&mut WireBuf::default(), &mut Idle::default())
            .await
            .is_none()
    );
}

#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl Service for Recorder {
    fn accept(&self, batch: Batch) {
        let lines = batch
            .iter()
            .map(|m| format!("{}|{}", m.subject.escape_ascii(), m.payload.escape_ascii()));
        self.0.lock().unwrap().extend(lines);
    }
}

#[test]
fn services_take_batches() {
    let router = Arc::new(Router::new());
    let recorder = Arc::new(Recorder::default());
    let service: Arc<dyn Service> = recorder.clone();
    let handle = router.subscribe_service(&service, b"s.>", None);
    let mut publisher = Publisher::new(router.clone());
    publisher.publish(&message("s.1", "x"), None);
    publisher.deliver(b"s.2", &message("shown", "y"), None);
    assert!(recorder.0.lock().unwrap().is_empty());
    publisher.flush();
    assert_eq!(*recorder.0.lock().unwrap(), ["s.1|x", "shown|y"]);
    router.remove(&handle);
    assert_eq!(publisher.publish(&message("s.1", ""), None), 0);
}

fn token() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("c")]
}

fn pattern() -> impl Strategy<Value = String> {
    let wild = prop_oneof![3 => token(), 1 => Just("*")];
    (prop::collection::vec(wild, 1..4), any::<bool>()).prop_map(|(mut tokens, tail)| {
        if tail {
            tokens.push(">");
        }
        tokens.join(".")
    })
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe(u8, String, bool),
    Unsubscribe(u8),
    Publish(String, bool),
    /// What the client does not get from now on.
    Deny(Option<String>),
}

fn step() -> impl Strategy<Value = Step> {
    let subject = prop::collection::vec(token(), 1..5).prop_map(|tokens| tokens.join("."));
    prop_oneof![
        2 => (0..12u8, pattern(), any::<bool>()).prop_map(|(sid, pattern, queue)| Step::Subscribe(sid, pattern, queue)),
        1 => (0..12u8).prop_map(Step::Unsubscribe),
        8 => (subject, any::<bool>()).prop_map(|(to, once)| Step::Publish(to, once)),
        1 => prop::option::of(pattern()).prop_map(Step::Deny),
    ]
}

/// Whose deliveries wait in an outbox that is not empty, by sid.
fn receivers(client: &Client) -> Vec<u8> {
    let mut wire = WireBuf::default();
    client.outbox.take(&mut wire, &mut Idle::default()).now_or_never();
    let text = String::from_utf8(wire.flat().clone()).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("MSG"));
    let mut sids: Vec<u8> = lines
        .map(|line| line.split(' ').nth(2).unwrap().as_bytes()[0] - b'0')
        .collect();
    sids.sort_unstable();
    sids
}

proptest! {
    /// The table, the trie and the caches against a list that is searched.
    #[test]
    fn agrees_with_a_naive_matcher(steps in prop::collection::vec(step(), 1..200)) {
        let (router, client) = router_and_client();
        let mut publisher = Publisher::new(router.clone());
        let mut model: HashMapModel = HashMapModel::new();
        let mut denied: Option<String> = None;
        for step in steps {
            match step {
                Step::Subscribe(sid, pattern, queue) => {
                    let queue = queue.then_some(&b"q"[..]);
                    router.subscribe(&client, &[b'0' + sid], pattern.as_bytes(), queue);
                    model.entry(sid).or_insert((pattern, queue.is_some()));
                }
                Step::Unsubscribe(sid) => {
                    router.unsubscribe(&client, &[b'0' + sid], None);
                    model.remove(&sid);
                }
                Step::Deny(pattern) => {
                    let denied_now = |p: &String| Denied { pattern: p.clone().into_bytes(), queue: None };
                    let filter = pattern.as_ref().map(|p| Arc::new(Filter::new(vec![denied_now(p)])));
                    let terms = filter.map(|filter| Terms { filter: Some(filter), responses: None, publish: Arc::new(|_| true) });
                    router.set_terms(&client, terms);
                    denied = pattern;
                }
                Step::Publish(to, once) => {
                    let matches = |pattern: &str| subject::matches(pattern.as_bytes(), to.as_bytes());
                    let interested = model.values().any(|(pattern, _)| matches(pattern));
                    prop_assert_eq!(router.has_interest(to.as_bytes()), interested);
                    let is_denied = denied.as_deref().is_some_and(matches);
                    let matching = model.iter().filter(|(_, (pattern, _))| !is_denied && matches(pattern));
                    let (queued, plain): (Vec<_>, Vec<_>) = matching.partition(|(_, (_, queue))| *queue);
                    let queued: Vec<u8> = queued.iter().map(|(sid, _)| **sid).collect();
                    let mut expected: Vec<u8> = plain.iter().map(|(sid, _)| **sid).collect();
                    let count = expected.len() + usize::from(!queued.is_empty());
                    let told = message(&to, "");
                    let handed = if once { publisher.publish_once(&told) } else { publisher.publish(&told, None) };
                    prop_assert_eq!(handed, count, "{}", &to);
                    if count > 0 {
                        publisher.flush();
                        let got = receivers(&client);
                        expected.extend(got.iter().filter(|sid| queued.contains(sid)));
                        expected.sort_unstable();
                        prop_assert_eq!(got, expected, "{}", to);
                    }
                }
            }
            prop_assert_eq!(router.stats().subscriptions, model.len());
        }
    }
}

type HashMapModel = std::collections::HashMap<u8, (String, bool)>;
