//! What a reload means for those who are in.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::account::{Login, User, Verdict};
use crate::protocol::connect::Connect;
use crate::protocol::encode;
use crate::router::WireBuf;

use super::cause::harmless;
use super::handle::Handle;
use super::reason::Reason;
use super::{Context, gate, tls};

/// Looks at every connection that is in: one whose credentials no longer hold is sent away, one whose permissions have
/// shrunk loses the subscriptions they no longer cover.
pub(super) async fn enforce(context: &Context) {
    let mut hashed = Vec::new();
    for handle in context.registry.live() {
        if end_unpinned(context, &handle) {
            continue;
        }
        let Some(seen) = Seen::of(&handle) else { continue };
        match verdict(context, &handle, &seen) {
            Verdict::Later(_) => hashed.push(handle),
            verdict => carry_out(context, &handle, &seen, verdict),
        }
    }
    // Each comparison takes its time, so nobody else waits for them; what many have in common is compared once. What is right is
    // remembered by the verifier.
    let mut wrong = HashSet::new();
    for handle in hashed {
        // As it is now: it may have shown other credentials meanwhile.
        let Some(seen) = Seen::of(&handle) else { continue };
        let verdict = match verdict(context, &handle, &seen) {
            Verdict::Later(verification) => {
                let key = verification.key();
                if wrong.contains(&key) {
                    verification.known_bad()
                } else {
                    let verdict = context.verifier.verify(verification).await;
                    if matches!(verdict, Verdict::Refused(_)) {
                        wrong.insert(key);
                    }
                    verdict
                }
            }
            verdict => verdict,
        };
        carry_out(context, &handle, &seen, verdict);
    }
    end_surplus(context);
}

/// Sends away those for whom limits that have shrunk leave no room: of a server or an account the last to come, and who has
/// more subscriptions than its account and its user grant.
fn end_surplus(context: &Context) {
    let mut live = context.registry.live();
    live.retain(|handle| handle.reason().is_none());
    // Who is part of this process does not come back.
    live.sort_by_key(|handle| (!handle.is_in_process(), handle.id()));
    let end = |handle: &Handle, reason: Reason, max: usize| {
        handle.note(format!("reload: at most {max} are allowed now"));
        handle.stop(reason);
    };
    let max = context.options().connections_max;
    for handle in live.drain(max.min(live.len())..) {
        end(&handle, Reason::ConnectionsExceeded, max);
    }
    let mut counts: HashMap<Arc<str>, usize> = HashMap::new();
    for handle in live.iter().filter(|handle| handle.admitted().is_some()) {
        let account = handle.account();
        let count = counts.entry(account.name().clone()).or_default();
        *count += 1;
        let subscriptions = handle.client.subscription_count();
        let (connections_max, granted) = (account.spec().limits.connections, handle.subscriptions_granted());
        match (connections_max, granted) {
            (Some(max), _) if *count > max => end(handle, Reason::AccountConnectionsExceeded, max),
            (_, Some(max)) if subscriptions > max => end(handle, Reason::SubscriptionsExceeded, max),
            _ => {}
        }
    }
}

/// A connection as it was when it was judged.
struct Seen {
    turn: u64,
    connect: Arc<Connect>,
    user: Option<Arc<User>>,
}

impl Seen {
    /// None of one that is not in.
    fn of(handle: &Handle) -> Option<Self> {
        let turn = handle.turn();
        Some(Self {
            turn: *turn,
            connect: handle.connect(),
            user: handle.admitted()?,
        })
    }
}

/// Makes of a connection what is now known of it. One that has shown other credentials since it was seen has been judged
/// by them, and judges itself anew if that was by the old rules.
fn carry_out(context: &Context, handle: &Arc<Handle>, seen: &Seen, verdict: Verdict) {
    let turn = handle.turn();
    if *turn != seen.turn {
        return;
    }
    match verdict {
        Verdict::Admitted(user) if has_moved(context, handle, user.as_ref()) => {
            // It comes back, into the other account.
            handle.note("its user has moved to another account".to_owned());
            handle.stop(Reason::Kicked);
        }
        Verdict::Admitted(user) => {
            handle.admit(user.clone());
            end_subscriptions(handle, user.as_ref());
            gate::impose(&handle.account().router, &handle.client, user.as_ref());
        }
        Verdict::Refused(rule) => {
            let (ip, port, id) = (&handle.ip, handle.port, handle.id());
            tracing::warn!(
                "{ip}:{port} - cid:{id} - reload: credentials no longer hold: {}",
                harmless(&rule)
            );
            handle.stop(Reason::AuthenticationFailure);
        }
        Verdict::Revoked(rule) => {
            let (ip, port, id) = (&handle.ip, handle.port, handle.id());
            tracing::warn!(
                "{ip}:{port} - cid:{id} - reload: credentials revoked: {}",
                harmless(&rule)
            );
            handle.stop(Reason::CredentialsRevoked);
        }
        Verdict::Later(_) => unreachable!("a comparison has an outcome"),
    }
}

fn has_moved(context: &Context, handle: &Handle, user: Option<&Arc<User>>) -> bool {
    let account = context.accounts.of(user.map(|user| &**user));
    account.is_none_or(|account| !Arc::ptr_eq(&account, &handle.account()))
}

/// Sends away whose key is no longer one of those that may come in.
fn end_unpinned(context: &Context, handle: &Handle) -> bool {
    let (Some(tls), Some(agreed)) = (context.tls(), handle.tls()) else {
        return false;
    };
    if tls.is_pinned(agreed.certificate.as_ref()) {
        return false;
    }
    handle.note("reload: its key is none of pinned_certs any more".to_owned());
    handle.stop(Reason::TlsHandshake);
    true
}

/// What its credentials are worth under the new rules.
fn verdict(context: &Context, handle: &Handle, seen: &Seen) -> Verdict {
    let (encryption, auth) = context.terms();
    let (before, connect) = (seen.user.as_ref(), &seen.connect);
    let mapped = tls::mapped(encryption.as_deref(), &auth, connect, handle);
    match mapped.unwrap_or_else(|| handle.judge(&auth, connect)) {
        Verdict::Later(verification) => {
            // The same hash as before: it was compared when the connection came in.
            let same = |user: &Arc<User>| verification.is_of(user);
            if before.is_some_and(|user| matches!(user.login, Login::Password(_)) && same(user)) {
                verification.known_good()
            } else {
                Verdict::Later(verification)
            }
        }
        verdict => verdict,
    }
}

/// Ends what the user may no longer subscribe to, and says so, as NATS does.
fn end_subscriptions(handle: &Handle, user: Option<&Arc<User>>) {
    let Some(permissions) = user.and_then(|user| user.permissions.as_ref()) else {
        return;
    };
    let mut wire = WireBuf::default();
    for subscription in handle.client.subscriptions() {
        let (pattern, queue) = (subscription.pattern(), subscription.queue());
        if permissions.may_subscribe(pattern, queue) {
            continue;
        }
        handle.account().router.remove(&subscription);
        let pattern = String::from_utf8_lossy(pattern);
        let group = queue
            .map(|queue| format!(" using queue \"{}\"", String::from_utf8_lossy(queue)))
            .unwrap_or_default();
        let sid = String::from_utf8_lossy(subscription.sid());
        let text = format!("Permissions Violation for Subscription to \"{pattern}\"{group} (sid \"{sid}\")");
        encode::error(wire.flat(), &text);
    }
    if !wire.is_empty() {
        handle.client.outbox.flush(&mut wire);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::account::{Accounts, Auth};
    use crate::connection::Options;
    use crate::protocol::info::Info;
    use crate::router::Client;

    fn handle(context: &Context, id: u64, pass: &str) -> Arc<Handle> {
        let client = Client::new(id, 1 << 20);
        let handle = Arc::new(Handle::new(client, "192.0.2.1".to_owned(), 1, context));
        handle.set_connect(Arc::new(Connect {
            user: Some("u".to_owned()),
            pass: Some(pass.to_owned()),
            ..Connect::default()
        }));
        handle.admit(None);
        assert!(context.registry.add(&handle, usize::MAX));
        handle
    }

    #[tokio::test]
    async fn what_many_have_in_common_is_compared_once() {
        const MANY: u64 = 60;
        let auth = Auth::User {
            user: "u".to_owned(),
            pass: bcrypt::hash("new", 8).unwrap(),
        };
        let began = Instant::now();
        bcrypt::hash("other", 8).unwrap();
        let one = began.elapsed();
        let context = Context::new(
            Options::default(),
            Accounts::new(auth, &[], None),
            Info::default(),
        );
        let wrong: Vec<_> = (0..MANY).map(|id| handle(&context, id, "old")).collect();
        let right: Vec<_> = (MANY..2 * MANY).map(|id| handle(&context, id, "new")).collect();
        let began = Instant::now();
        enforce(&context).await;
        let took = began.elapsed();
        for handle in wrong {
            assert_eq!(handle.reason(), Some(Reason::AuthenticationFailure));
        }
        assert!(right.iter().all(|handle| handle.reason().is_none()));
        // Two comparisons, not a hundred and twenty.
        assert!(took < one * MANY as u32, "{took:?}, one comparison {one:?}");
    }

    #[tokio::test]
    async fn who_has_become_somebody_else_meanwhile_is_not_judged_as_who_it_was() {
        let context = Context::new(
            Options::default(),
            Accounts::new(Auth::Open, &[], None),
            Info::default(),
        );
        let handle = handle(&context, 1, "old");
        let seen = Seen::of(&handle).unwrap();
        // A second CONNECT, between the look at it and what comes of that.
        let (shown, other) = (
            Arc::new(Connect::default()),
            Arc::new(User {
                name: "other".to_owned(),
                login: Login::NKey,
                permissions: None,
                account: crate::account::GLOBAL.into(),
                rule: "users[1]".to_owned(),
            }),
        );
        {
            let _turn = handle.take_turn();
            handle.set_connect(shown.clone());
            handle.admit(Some(other.clone()));
        }
        let is_other = |handle: &Handle| handle.user().is_some_and(|user| Arc::ptr_eq(&user, &other));
        for verdict in [
            Verdict::Admitted(None),
            Verdict::Refused("no such user".to_owned()),
            Verdict::Revoked("revoked".to_owned()),
        ] {
            carry_out(&context, &handle, &seen, verdict);
            assert!(handle.reason().is_none() && is_other(&handle));
        }
        // Judged as it is now, it is.
        let seen = Seen::of(&handle).unwrap();
        assert!(Arc::ptr_eq(&seen.connect, &shown));
        carry_out(
            &context,
            &handle,
            &seen,
            Verdict::Refused("no such user".to_owned()),
        );
        assert_eq!(handle.reason(), Some(Reason::AuthenticationFailure));
    }
}
