//! Bridges between routers: one request at a time, by hand.

use super::*;
use crate::protocol::subject;
use crate::router::{Client, Idle, Subscription};

/// Whoever asks, as far as a bridge cares.
struct Asker {
    wants_no_responders: bool,
}

impl About for Asker {
    fn request_info(&self, detailed: bool) -> String {
        format!("asker {detailed}")
    }

    fn wants_no_responders(&self) -> bool {
        self.wants_no_responders
    }
}

#[derive(Clone, Debug, Default)]
struct Heard {
    subject: String,
    reply: String,
    headers: String,
    payload: String,
}

/// Notes what comes, and answers each request on `router` so many times.
struct Room {
    heard: Mutex<Vec<Heard>>,
    answers: Option<(Arc<Router>, usize)>,
}

impl Room {
    fn on(router: &Arc<Router>, pattern: &str, answers: usize) -> Arc<Self> {
        let room = Arc::new(Self {
            heard: Mutex::default(),
            answers: (answers > 0).then(|| (router.clone(), answers)),
        });
        let service: Arc<dyn Service> = room.clone();
        router.subscribe_service(&service, pattern.as_bytes(), None);
        room
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

impl Service for Room {
    fn accept(&self, batch: Batch) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        for message in batch.iter() {
            let heard = Heard {
                subject: text(message.subject),
                reply: text(message.reply),
                headers: text(message.headers),
                payload: text(message.payload),
            };
            self.heard.lock().unwrap().push(heard.clone());
            if let Some((router, times)) = &self.answers {
                for _ in 0..*times {
                    publish(router, None, &heard.reply, "", "", "answer");
                }
            }
        }
    }
}

fn publish(
    router: &Arc<Router>,
    client: Option<&Arc<Client>>,
    to: &str,
    reply: &str,
    headers: &str,
    payload: &str,
) {
    let mut publisher = match client {
        Some(client) => Publisher::of_client(router.clone(), client.clone()),
        None => Publisher::new(router.clone()),
    };
    let message = Message {
        subject: to.as_bytes(),
        reply: reply.as_bytes(),
        headers: headers.as_bytes(),
        payload: payload.as_bytes(),
    };
    publisher.publish(&message, None);
    publisher.flush();
}

fn terms(response: Response) -> Terms {
    Terms {
        response,
        threshold: Duration::from_secs(10),
        share: false,
    }
}

/// A bridge from `here` in one router to `there` in the other.
fn bridge(
    home: &Arc<Router>,
    here: &str,
    away: &Arc<Router>,
    there: &str,
    response: Response,
) -> (Arc<Bridge>, Arc<Subscription>) {
    limited(home, here, away, there, response, WAITING_MAX)
}

fn limited(
    home: &Arc<Router>,
    here: &str,
    away: &Arc<Router>,
    there: &str,
    response: Response,
    waiting_max: usize,
) -> (Arc<Bridge>, Arc<Subscription>) {
    let rename = Transform::between(here, there).unwrap();
    let terms = terms(response);
    let waiting = Arc::new(Waiting::new(waiting_max, terms.threshold));
    let bridge = Arc::new(Bridge {
        waiting,
        ..Bridge::new(home, account(away), rename, "HOME".into(), terms)
    });
    let service: Arc<dyn Service> = bridge.clone();
    let subscription = home.subscribe_service(&service, here.as_bytes(), None);
    (bridge, subscription)
}

/// An account without anything but a router.
fn account(router: &Arc<Router>) -> Arc<Account> {
    let spec = Arc::new(crate::account::Spec::new("AWAY"));
    let mut account = Arc::into_inner(Account::new(spec)).unwrap();
    account.router = router.clone();
    Arc::new(account)
}

fn routers<const N: usize>() -> [Arc<Router>; N] {
    std::array::from_fn(|_| Arc::new(Router::new()))
}

fn client(wants_no_responders: bool) -> (Arc<Client>, Arc<dyn About>) {
    let client = Client::new(1, 1 << 20);
    let asker: Arc<dyn About> = Arc::new(Asker { wants_no_responders });
    client.set_about(Arc::downgrade(&asker));
    (client, asker)
}

#[test]
fn a_request_crosses_and_one_answer_comes_back() {
    let [home, away] = routers();
    let (bridge, _) = bridge(&home, "my.*", &away, "svc.*", Response::Singleton);
    let service = Room::on(&away, "svc.*", 2);
    let inbox = Room::on(&home, "inbox", 0);
    publish(&home, None, "my.x", "inbox", "", "question");
    let asked = service.heard();
    assert_eq!(
        (asked[0].subject.as_str(), asked[0].payload.as_str()),
        ("svc.x", "question")
    );
    let secret = asked[0].reply.strip_prefix("_R_.").unwrap();
    assert_eq!(secret.len(), 32);
    assert!(subject::is_pattern(asked[0].reply.as_bytes()));
    assert_eq!(inbox.heard().len(), 1);
    assert_eq!(inbox.heard()[0].subject, "inbox");
    assert_eq!(bridge.waiting(), 0);
    assert!(!away.has_interest(asked[0].reply.as_bytes()));
}

#[test]
fn what_is_answered_makes_room_whatever_is_not() {
    let [home, away] = routers();
    let (bridge, _) = limited(&home, "*", &away, "*", Response::Singleton, 3);
    let silent = Room::on(&away, "silent", 0);
    let prompt = Room::on(&away, "prompt", 1);
    let inbox = Room::on(&home, "in.box", 0);
    publish(&home, None, "silent", "in.box", "", "");
    for _ in 0..10 {
        publish(&home, None, "prompt", "in.box", "", "");
    }
    assert_eq!((prompt.heard().len(), inbox.heard().len()), (10, 10));
    assert_eq!(bridge.waiting(), 1);
    // The first is good still, after as many as may wait and more have been answered.
    publish(&away, None, &silent.heard()[0].reply, "", "", "late");
    assert_eq!(inbox.heard().last().unwrap().payload, "late");
    for _ in 0..4 {
        publish(&home, None, "silent", "in.box", "", "");
    }
    // One more than may wait: the oldest of them is given up.
    assert_eq!(bridge.waiting(), 3);
    let replies: Vec<_> = silent.heard().iter().map(|heard| heard.reply.clone()).collect();
    let awaited: Vec<_> = replies
        .iter()
        .map(|reply| away.has_interest(reply.as_bytes()))
        .collect();
    assert_eq!(awaited, [false, false, true, true, true]);
}

#[test]
fn requests_are_given_up_when_their_time_is_over() {
    let [home, away] = routers();
    let (bridge, _) = bridge(&home, "svc", &away, "svc", Response::Stream);
    let service = Room::on(&away, "svc", 0);
    let inbox = Room::on(&home, "inbox", 0);
    let before = Instant::now();
    publish(&home, None, "svc", "inbox", "", "");
    publish(&home, None, "svc", "inbox", "", "");
    let threshold = Duration::from_secs(10);
    bridge.sweep(before + threshold - Duration::from_millis(5));
    assert_eq!(bridge.waiting(), 2);
    // One is being answered: its time counts from the last answer on.
    std::thread::sleep(Duration::from_millis(30));
    let answered = Instant::now();
    publish(&away, None, &service.heard()[0].reply, "", "", "1");
    bridge.sweep(answered + threshold - Duration::from_millis(5));
    assert_eq!(bridge.waiting(), 1);
    publish(&away, None, &service.heard()[1].reply, "", "", "too late");
    publish(&away, None, &service.heard()[0].reply, "", "", "2");
    assert_eq!(inbox.heard().len(), 2);
    bridge.sweep(Instant::now() + threshold);
    assert_eq!(bridge.waiting(), 0);
    assert!(!away.has_interest(service.heard()[0].reply.as_bytes()));
}

#[test]
fn a_closed_bridge_keeps_nothing() {
    let [home, away] = routers();
    let (bridge, _) = bridge(&home, "svc", &away, "svc", Response::Singleton);
    let service = Room::on(&away, "svc", 0);
    publish(&home, None, "svc", "inbox", "", "");
    bridge.close();
    assert!(!away.has_interest(service.heard()[0].reply.as_bytes()));
    // One that was on its way.
    let before = away.generation();
    publish(&home, None, "svc", "inbox", "", "");
    assert_eq!((bridge.waiting(), service.heard().len()), (0, 1));
    assert!(away.generation() > before, "its reply came, and went");
    assert_eq!(Arc::strong_count(&bridge.waiting), 1);
}

#[test]
fn who_asks_is_said_by_the_server_alone() {
    const FORGED: &str = "NATS/1.0\r\nNats-Request-Info: forged\r\n\r\n";
    let [first, second, third] = routers();
    let (_to_second, _) = bridge(&first, "a", &second, "b", Response::Singleton);
    let (_to_third, _) = bridge(&second, "b", &third, "c", Response::Singleton);
    let service = Room::on(&third, "c", 0);
    let said = |at: usize| {
        let block = service.heard()[at].headers.clone();
        let info = headers::get(block.as_bytes(), REQUEST_INFO.as_bytes()).unwrap();
        String::from_utf8(info.to_vec()).unwrap()
    };
    let (asker, _about) = client(true);
    publish(&first, Some(&asker), "a", "", FORGED, "");
    // What the first bridge has said crosses the second as it is.
    assert_eq!(said(0), "asker false");
    // From the server itself, as messages of streams are: what a header says is what some client has stored.
    publish(&second, None, "b", "", FORGED, "");
    assert_eq!(said(1), r#"{"acc":"HOME"}"#);
    // A client that is gone.
    drop(_about);
    publish(&second, Some(&asker), "b", "", FORGED, "");
    assert_eq!(said(2), r#"{"acc":"HOME"}"#);
    // An answer that is a request for another account.
    let asked = Room::on(&second, "x", 0);
    let (_to_x, _) = bridge(&first, "x", &second, "x", Response::Singleton);
    let (_on, _) = bridge(&first, "on", &third, "c", Response::Singleton);
    publish(&first, None, "x", "on", "", "");
    publish(&second, None, &asked.heard()[0].reply, "", FORGED, "");
    assert_eq!(said(3), r#"{"acc":"HOME"}"#);
}

#[test]
fn only_who_wants_to_hears_that_nobody_listens() {
    let [first, second, third] = routers();
    let (near, _) = bridge(&first, "a", &second, "b", Response::Singleton);
    let (_far, _) = bridge(&second, "b", &third, "c", Response::Singleton);
    let inbox = Room::on(&first, "inbox", 0);
    let (quiet, _about) = client(false);
    publish(&first, Some(&quiet), "a", "inbox", "", "");
    assert_eq!(inbox.heard().len(), 0);
    let (other, _about) = client(true);
    publish(&first, Some(&other), "a", "inbox", "", "");
    assert_eq!(inbox.heard().len(), 1);
    assert!(inbox.heard()[0].headers.starts_with("NATS/1.0 503"));
    // The one that was not told waits for its time to be over.
    assert_eq!(near.waiting(), 1);
}

#[test]
fn a_request_crosses_so_many_borders_and_no_more() {
    let chain: [Arc<Router>; HOPS_MAX as usize + 2] = routers();
    let bridges: Vec<_> = chain
        .windows(2)
        .map(|pair| bridge(&pair[0], "svc", &pair[1], "svc", Response::Singleton))
        .collect();
    let last = &chain[HOPS_MAX as usize + 1];
    let too_far = Room::on(last, "svc", 1);
    let inbox = Room::on(&chain[0], "inbox", 0);
    publish(&chain[0], None, "svc", "inbox", "", "");
    // Nobody has got it, and who asks hears so at once.
    assert_eq!((too_far.heard().len(), inbox.heard().len()), (0, 1));
    assert!(inbox.heard()[0].headers.starts_with("NATS/1.0 503"));
    assert_eq!(bridges[0].0.waiting(), 0);
    let (quiet, _about) = client(false);
    publish(&chain[0], Some(&quiet), "svc", "inbox", "", "");
    assert_eq!((too_far.heard().len(), inbox.heard().len()), (0, 1));
    // One border less.
    let inbox = Room::on(&chain[1], "inbox", 0);
    publish(&chain[1], None, "svc", "inbox", "", "");
    assert_eq!((too_far.heard().len(), inbox.heard().len()), (1, 1));
    // The one that was dropped without a word is waited for still.
    assert_eq!((bridges[0].0.waiting(), bridges[1].0.waiting()), (1, 1));
}

#[test]
fn a_circle_comes_to_an_end() {
    let [one, other] = routers();
    let (_there, _) = bridge(&one, "svc", &other, "svc", Response::Singleton);
    let (_back, _) = bridge(&other, "svc", &one, "svc", Response::Singleton);
    let witness = Room::on(&one, "svc", 0);
    publish(&one, None, "svc", "inbox", "", "");
    assert_eq!(witness.heard().len(), 1 + usize::from(HOPS_MAX) / 2);
}

#[tokio::test]
async fn who_answers_is_slowed_down_by_who_asks() {
    let [home, away] = routers();
    let (_bridge, _) = bridge(&home, "svc", &away, "svc", Response::Stream);
    let service = Room::on(&away, "svc", 0);
    let (asker, _about) = client(true);
    home.subscribe(&asker, b"1", b"inbox", None);
    publish(&home, Some(&asker), "svc", "inbox", "", "");
    let mut publisher = Publisher::new(away.clone());
    let reply = service.heard()[0].reply.clone();
    let payload = vec![b'x'; 1 << 16];
    let mut answers = 0;
    while !publisher.is_congested() && asker.outbox.closed().is_none() {
        answers += 1;
        publisher.publish(
            &Message {
                subject: reply.as_bytes(),
                payload: &payload,
                ..Message::default()
            },
            None,
        );
        publisher.flush();
    }
    // Its outbox is half full.
    assert!((8..=9).contains(&answers), "{answers} answers");
    // It waits until that is read.
    let reader = {
        let asker = asker.clone();
        async move {
            let mut wire = crate::router::WireBuf::default();
            asker.outbox.take(&mut wire, &mut Idle::default()).await.unwrap();
            asker.outbox.wrote(wire.len());
        }
    };
    let mut relieved = std::pin::pin!(publisher.relieve());
    let early = tokio::time::timeout(Duration::from_millis(20), relieved.as_mut());
    assert!(early.await.is_err());
    reader.await;
    relieved.await;
    assert_eq!((asker.outbox.stalls(), asker.outbox.pending()), (1, 0));
}

#[tokio::test]
async fn who_asks_is_slowed_down_by_who_serves() {
    let [home, away] = routers();
    let (bridge, _) = bridge(&home, "svc", &away, "svc", Response::Singleton);
    let (slow, _about) = client(true);
    away.subscribe(&slow, b"1", b"svc", None);
    publish(&home, None, "svc", "", "", &"x".repeat(600_000));
    assert!(bridge.congested());
    // One that led to others does not hide it.
    away.unsubscribe(&slow, b"1", None);
    publish(&home, None, "svc", "", "", "");
    assert!(bridge.congested());
    let mut wire = crate::router::WireBuf::default();
    slow.outbox.take(&mut wire, &mut Idle::default()).await.unwrap();
    slow.outbox.wrote(wire.len());
    bridge.relief().await;
    assert_eq!(slow.outbox.stalls(), 1);
    assert!(!bridge.congested());
}
