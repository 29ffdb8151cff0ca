//! Messages of another router: who subscribes here to what is imported gets them from there, renamed.
//!
//! Each subscription that overlaps an import has a *shadow* in the other router: the same target and sid, on the part of its
//! pattern that the import covers, in the other router's names. So interest is exact, nothing is copied for nobody, and a
//! message goes from its publisher to its receiver in one step. A shadow counts deliveries for its primary and ends with
//! it. As in nats-server, members of a queue group in both routers are one group there, and imports do not chain.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use crate::protocol::subject;
use crate::protocol::transform::Transform;

use super::Router;
use super::subscription::{Shadow, Subscription};

/// What is taken from another router, and what it is called here.
pub struct Import {
    from: Weak<Router>,
    /// The names here.
    here: Vec<u8>,
    /// From the names there to those here; none when they are the same.
    rename: Option<Arc<Transform>>,
    /// From the names here to those there.
    back: Transform,
}

impl Import {
    /// Takes what `rename` takes; none when it has no way back.
    pub fn new(from: &Arc<Router>, rename: Transform) -> Option<Self> {
        let here = rename.outcome()?.into_bytes();
        let is_same = here == rename.source();
        Some(Self {
            from: Arc::downgrade(from),
            back: rename.inverse()?,
            here,
            rename: (!is_same).then(|| Arc::new(rename)),
        })
    }
}

impl PartialEq for Import {
    fn eq(&self, other: &Self) -> bool {
        self.from.ptr_eq(&other.from) && self.here == other.here && self.back == other.back
    }
}

/// The imports of one router.
#[derive(Default)]
pub(super) struct Imports {
    /// Without an import a subscription costs one look at this.
    any: AtomicBool,
    list: RwLock<(Weak<Router>, Arc<[Import]>)>,
}

impl Router {
    /// Replaces what is taken from other routers, for the subscriptions that are there too.
    pub fn set_imports(self: &Arc<Self>, imports: Vec<Import>) {
        let any = !imports.is_empty();
        {
            let mut list = self.imports.list.write().unwrap_or_else(PoisonError::into_inner);
            if *list.1 == *imports {
                return;
            }
            *list = (Arc::downgrade(self), imports.into());
        }
        if self.imports.any.swap(any, Ordering::SeqCst) || any {
            let all = self.table.read().unwrap_or_else(PoisonError::into_inner).all();
            for subscription in all.iter().filter(|subscription| subscription.takes_imports) {
                self.cast_shadows(subscription);
            }
        }
    }

    /// Whether anything is taken from other routers.
    #[inline]
    pub(super) fn has_imports(&self) -> bool {
        self.imports.any.load(Ordering::SeqCst)
    }

    /// The routers that anything is taken from.
    pub(super) fn sources(&self) -> Vec<Arc<Router>> {
        if !self.has_imports() {
            return Vec::new();
        }
        let list = self.imports.list.read().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<Arc<Router>> = Vec::new();
        for from in list.1.iter().filter_map(|import| import.from.upgrade()) {
            if !found.iter().any(|known| Arc::ptr_eq(known, &from)) {
                found.push(from);
            }
        }
        found
    }

    /// Makes the shadows of a subscription anew.
    pub(super) fn cast_shadows(&self, subscription: &Arc<Subscription>) {
        let mut shadows = subscription.shadows();
        let mut old = std::mem::take(&mut *shadows);
        // Read under the lock of the shadows: the last one to make them has the newest imports.
        let (home, imports) = self
            .imports
            .list
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for import in imports.iter().filter(|_| !subscription.is_closed()) {
            let Some(from) = import.from.upgrade() else {
                continue;
            };
            let Some(common) = subject::intersection(&subscription.pattern, &import.here) else {
                continue;
            };
            let Some(pattern) = import.back.map(&common, 0) else {
                continue;
            };
            let same = |(router, shadow): &(Weak<Router>, Weak<Subscription>)| {
                router.ptr_eq(&import.from)
                    && shadow.upgrade().is_some_and(|shadow| {
                        let rename = shadow.shadow.as_ref().and_then(|shadow| shadow.rename.as_ref());
                        *shadow.pattern == *pattern && rename == import.rename.as_ref()
                    })
            };
            // One that stays is left alone: nobody gets a message by the old one and the new one.
            if let Some(at) = old.iter().position(same) {
                shadows.push(old.swap_remove(at));
                continue;
            }
            let shadow = Shadow {
                primary: subscription.clone(),
                home: home.clone(),
                rename: import.rename.clone(),
            };
            let shadow = from.admit_shadow(shadow, &pattern);
            shadows.push((import.from.clone(), Arc::downgrade(&shadow)));
        }
        drop(shadows);
        remove_shadows(old);
    }

    /// Ends the shadows of a subscription that has ended. Whoever makes shadows meanwhile sees that it has.
    pub(super) fn end_shadows(subscription: &Subscription) {
        let old = std::mem::take(&mut *subscription.shadows());
        remove_shadows(old);
    }

    fn admit_shadow(&self, shadow: Shadow, pattern: &[u8]) -> Arc<Subscription> {
        let primary = shadow.primary.clone();
        let queue = primary.queue.as_deref();
        let mut made = self.make(
            &primary.sid,
            pattern,
            queue,
            primary.target.clone(),
            primary.target_id,
        );
        made.takes_imports = false;
        made.shadow = Some(Box::new(shadow));
        let made = Arc::new(made);
        self.services.fetch_add(1, Ordering::Relaxed);
        self.insert(made.clone());
        made
    }

    /// Ends a subscription that has had its last delivery, where it was made.
    pub(super) fn finish(&self, subscription: &Subscription) {
        match &subscription.shadow {
            None => self.remove(subscription),
            Some(shadow) => {
                if let Some(home) = shadow.home.upgrade() {
                    home.remove(&shadow.primary);
                }
            }
        }
    }
}

fn remove_shadows(shadows: Vec<(Weak<Router>, Weak<Subscription>)>) {
    for (router, shadow) in shadows {
        if let (Some(router), Some(shadow)) = (router.upgrade(), shadow.upgrade()) {
            router.remove(&shadow);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::Client;
    use super::super::publisher::Publisher;
    use super::super::wire::WireBuf;
    use super::*;
    use crate::protocol::encode::Message;
    use crate::router::Idle;

    fn publish(router: &Arc<Router>, to: &str) -> usize {
        let mut publisher = Publisher::new(router.clone());
        let message = Message {
            subject: to.as_bytes(),
            payload: b"x",
            ..Message::default()
        };
        let mut receivers = 0;
        // More than once: the second goes through the cache, the third through its lines.
        for _ in 0..3 {
            receivers += publisher.publish(&message, None);
        }
        publisher.flush();
        receivers / 3
    }

    async fn taken(client: &Client) -> String {
        let (mut out, mut wire) = (Vec::new(), WireBuf::default());
        wire.flat().extend_from_slice(b"end");
        client.outbox.flush(&mut wire);
        client.outbox.take(&mut wire, &mut Idle::default()).await;
        let mut cursor = wire.cursor();
        while bytes::Buf::has_remaining(&cursor) {
            let chunk = bytes::Buf::chunk(&cursor).to_vec();
            bytes::Buf::advance(&mut cursor, chunk.len());
            out.extend(chunk);
        }
        String::from_utf8(out).unwrap()
    }

    fn import(from: &Arc<Router>, there: &str, here: &str) -> Import {
        Import::new(from, Transform::between(there, here).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn subscribers_get_what_is_imported_under_its_new_name() {
        let (ours, theirs) = (Arc::new(Router::new()), Arc::new(Router::new()));
        let client = Client::new(1, 1 << 20);
        ours.subscribe(&client, b"before", b"x.ev.*", None);
        assert_eq!(publish(&theirs, "ev.a"), 0);
        ours.set_imports(vec![
            import(&theirs, "ev.>", "x.ev.>"),
            import(&theirs, "same", "same"),
        ]);
        ours.subscribe(&client, b"after", b"*.*.a", None);
        ours.subscribe(&client, b"same", b"same", None);
        ours.subscribe(&client, b"other", b"ev.>", None);
        assert_eq!(publish(&theirs, "ev.a"), 2);
        assert_eq!(publish(&theirs, "ev.a.b"), 0);
        assert_eq!(publish(&theirs, "same"), 1);
        assert_eq!(publish(&theirs, "else"), 0);
        let text = taken(&client).await;
        assert_eq!(text.matches("MSG x.ev.a before 1\r\n").count(), 3, "{text}");
        assert_eq!(text.matches("MSG x.ev.a after 1\r\n").count(), 3, "{text}");
        assert_eq!(text.matches("MSG same same 1\r\n").count(), 3, "{text}");
        assert!(!text.contains("other"), "{text}");
        // What is published here stays here.
        assert_eq!(publish(&ours, "same"), 1);
        ours.unsubscribe(&client, b"before", None);
        assert_eq!(publish(&theirs, "ev.a"), 1);
        ours.set_imports(Vec::new());
        assert_eq!(publish(&theirs, "ev.a"), 0);
        assert_eq!((theirs.stats().subscriptions, ours.stats().subscriptions), (0, 3));
        ours.remove_client(&client);
    }

    /// Takes nothing; counted by the router alone.
    struct Room;

    impl super::super::Service for Room {
        fn accept(&self, _: super::super::Batch) {}
    }

    #[test]
    fn rooms_of_the_server_are_not_talked_to_from_elsewhere() {
        let (ours, theirs) = (Arc::new(Router::new()), Arc::new(Router::new()));
        ours.set_imports(vec![import(&theirs, ">", ">")]);
        let room: Arc<dyn super::super::Service> = Arc::new(Room);
        ours.subscribe_service(&room, b"$JS.API.>", None);
        ours.subscribe_service_as_client(&room, b"orders.>");
        assert_eq!(
            (publish(&theirs, "$JS.API.INFO"), publish(&theirs, "orders.a")),
            (0, 1)
        );
        // Imports that come later, or again, change nothing of that.
        ours.set_imports(vec![
            import(&theirs, "orders.>", "orders.>"),
            import(&theirs, "$JS.>", "$JS.>"),
        ]);
        assert_eq!(
            (publish(&theirs, "$JS.API.INFO"), publish(&theirs, "orders.a")),
            (0, 1)
        );
        ours.set_imports(Vec::new());
        assert_eq!(publish(&theirs, "orders.a"), 0);
    }

    #[tokio::test]
    async fn a_limit_counts_deliveries_from_both_sides() {
        let (ours, theirs) = (Arc::new(Router::new()), Arc::new(Router::new()));
        ours.set_imports(vec![import(&theirs, "a", "a")]);
        let client = Client::new(1, 1 << 20);
        ours.subscribe(&client, b"1", b"a", None);
        ours.unsubscribe(&client, b"1", Some(4));
        assert_eq!(publish(&theirs, "a"), 1);
        publish(&ours, "a");
        assert_eq!(client.subscription_count(), 0);
        assert_eq!(
            (theirs.has_interest(b"a"), ours.has_interest(b"a")),
            (false, false)
        );
        assert_eq!(taken(&client).await.matches("MSG a 1 1").count(), 4);
    }
}
