//! Who a client is, and what it may do: CONNECT, SUB, permissions, and what a reload changes of them.

use std::sync::Arc;

use crate::account::{Auth, User, Verdict, Verification};
use crate::connection::cause;
use crate::connection::gate::{self, Gate};
use crate::connection::publish_line::PublishLine;
use crate::connection::reason::Reason;
use crate::connection::tls;
use crate::protocol::connect::Connect;
use crate::protocol::subject;
use crate::router::Publisher;

use super::Session;

/// A CONNECT whose credentials are still to be compared.
pub(crate) struct Pending {
    connect: Connect,
    verification: Verification,
    /// The reload whose rules it is compared by.
    epoch: u64,
}

impl Session {
    /// Lets in who need not show anything.
    pub fn admit_unasked(&mut self) {
        let handle = self.handle.clone();
        loop {
            let _turn = handle.take_turn();
            let epoch = self.context.epoch();
            let (encryption, auth) = self.context.terms();
            let admitted = match &*auth {
                // Who it is, its certificate says.
                _ if tls::maps(encryption.as_deref(), &auth, &self.handle).is_some() => Ok(()),
                Auth::Open => self.admit(None),
                Auth::Users(users) => match users.default_user() {
                    Some(user) => self.admit(Some(user.clone())),
                    None => Ok(()),
                },
                Auth::Token(_) | Auth::User { .. } | Auth::Operator(_) => Ok(()),
            };
            self.unwelcome = admitted.err();
            if self.context.epoch() == epoch {
                return;
            }
            // A reload came between, and may have looked at this connection before it was in.
            self.authorised = false;
            self.handle.withdraw();
        }
    }

    fn admit(&mut self, user: Option<Arc<User>>) -> Result<(), Reason> {
        self.enter(user.as_ref())?;
        self.authorised = true;
        if user.as_ref().is_some_and(|user| user.permissions.is_some()) || self.gate.is_some() {
            gate::impose(&self.account.router, &self.handle.client, user.as_ref());
            self.gate = Gate::of(user.as_ref());
        }
        self.handle.admit(user);
        self.note_limits();
        Ok(())
    }

    /// Takes on what the server, the account and the user allow.
    fn note_limits(&mut self) {
        self.payload_max = self.handle.payload_max(&self.options);
        self.subscriptions_max = self.handle.subscriptions_max(&self.options);
    }

    /// Goes into the account of its user.
    fn enter(&mut self, user: Option<&Arc<User>>) -> Result<(), Reason> {
        let account = self.context.accounts.of(user.map(|user| &**user));
        let Some(account) = account else {
            let name = user.map(|user| user.account.to_string()).unwrap_or_default();
            return Err(self.fatal(Reason::MissingAccount, || format!("there is no account {name}")));
        };
        let moves = !Arc::ptr_eq(&account, &self.account);
        let before = moves.then(|| self.account.clone());
        if moves {
            // What it has asked for elsewhere ends there.
            self.plain = None;
            self.publisher.flush();
            self.count_in();
            self.account.router.remove_client(&self.handle.client);
        }
        if !self.handle.enter(&account) {
            let why = || {
                format!(
                    "{} connections are in account {} already",
                    account.clients(),
                    account.name()
                )
            };
            return Err(self.fatal(Reason::AccountConnectionsExceeded, why));
        }
        if moves {
            self.publisher = Publisher::of_client(account.router.clone(), self.handle.client.clone());
            self.publisher.set_echo(self.connect.echo);
            self.account = account;
        }
        if let Some(before) = before {
            self.context.events.moved(&before);
        }
        self.context.events.moved(&self.account);
        self.mappings = self.account.mappings();
        Ok(())
    }

    /// Takes on what a reload has changed.
    #[cold]
    pub(super) fn reload(&mut self) {
        self.epoch = self.context.epoch();
        self.options = self.context.options();
        self.mappings = self.account.mappings();
        self.gate = Gate::of(self.handle.user().as_ref());
        self.note_limits();
        // What was remembered was allowed under the old terms.
        self.repeat = PublishLine::default();
    }

    /// Takes a CONNECT; one whose credentials take their time to compare comes back.
    pub(super) fn connect(&mut self, json: &[u8]) -> Result<Option<Pending>, Reason> {
        let connect = self.connect.merged(json).map_err(|error| {
            self.fatal(Reason::ProtocolViolation, || {
                format!("a CONNECT that cannot be read: {error}")
            })
        })?;
        if !connect.account.is_empty() || connect.new_account {
            return Err(self.refused(&connect, "it asks for an account of its choice"));
        }
        self.examine(connect)
    }

    fn examine(&mut self, mut connect: Connect) -> Result<Option<Pending>, Reason> {
        let epoch = self.context.epoch();
        let (encryption, auth) = self.context.terms();
        let mapped = tls::mapped(encryption.as_deref(), &auth, &connect, &self.handle);
        let named = match &mapped {
            Some(Verdict::Admitted(user)) => user.as_ref(),
            Some(Verdict::Later(verification)) => verification.user(),
            _ => None,
        };
        if let Some(user) = named {
            connect.user = Some(user.name.clone());
        }
        match mapped.unwrap_or_else(|| self.handle.judge(&auth, &connect)) {
            Verdict::Later(verification) => Ok(Some(Pending {
                connect,
                verification,
                epoch,
            })),
            verdict => self.decide(connect, verdict, epoch),
        }
    }

    /// Compares the credentials of a CONNECT, among a bounded number of others, and goes on with it.
    pub async fn verify(&mut self, mut pending: Pending) -> Result<(), Reason> {
        loop {
            let verdict = self.context.verifier.verify(pending.verification).await;
            match self.decide(pending.connect, verdict, pending.epoch)? {
                Some(again) => pending = again,
                None => return Ok(()),
            }
        }
    }

    /// INFO went out and CONNECT came back: the first guess, until a PING measures it.
    fn guess_round_trip(&self) {
        if self.handle.rtt().is_zero() {
            self.handle.set_rtt(self.handle.uptime());
        }
    }

    fn refused(&self, connect: &Connect, rule: &str) -> Reason {
        let user = connect
            .user
            .as_deref()
            .map(|user| format!(" - User \"{}\"", user.escape_debug()))
            .unwrap_or_default();
        self.guess_round_trip();
        // Whoever looks into it sees who it said it was.
        self.handle.set_connect(Arc::new(cause::remains(connect)));
        self.handle
            .note_rule(&format!("authentication error{user}: "), rule);
        Reason::AuthenticationFailure
    }

    fn decide(&mut self, connect: Connect, verdict: Verdict, epoch: u64) -> Result<Option<Pending>, Reason> {
        let user = match verdict {
            Verdict::Admitted(user) => user,
            Verdict::Refused(rule) | Verdict::Revoked(rule) => return Err(self.refused(&connect, &rule)),
            Verdict::Later(_) => unreachable!("a comparison has an outcome"),
        };
        if !(0..=1).contains(&connect.protocol) {
            let why = || format!("it speaks protocol {}, 0 and 1 are known", connect.protocol);
            return Err(self.fatal(Reason::BadClientProtocol, why));
        }
        if connect.no_responders && !connect.headers {
            return Err(Reason::NoRespondersNeedsHeaders);
        }
        let handle = self.handle.clone();
        let turn = handle.take_turn();
        let is_first = !self.connected;
        if self.connected || self.handle.user().is_some() {
            // A second CONNECT starts over, and so does the first one of who was somebody by default.
            self.publisher.settle();
            self.account.router.remove_client(&self.handle.client);
        }
        self.guess_round_trip();
        self.handle.touch();
        // What was checked for the line remembered need not hold any more.
        self.repeat = PublishLine::default();
        self.connected = true;
        self.publisher.set_echo(connect.echo);
        self.handle.client.set_headers(connect.headers);
        self.connect = Arc::new(connect);
        self.handle.set_connect(self.connect.clone());
        self.admit(user)?;
        drop(turn);
        if self.context.epoch() != epoch {
            // A reload came between, and may have looked at this connection before it was in: its rules count.
            let connect = Connect::clone(&self.connect);
            return self.examine(connect);
        }
        if is_first {
            self.context.events.connected(&self.handle);
        }
        self.acknowledge();
        Ok(None)
    }

    pub(super) fn subscribe(&mut self, pattern: &[u8], queue: Option<&[u8]>, sid: &[u8]) {
        if queue == Some(b"_sys_")
            || self
                .gate
                .as_ref()
                .is_some_and(|gate| !gate.may_subscribe(pattern, queue))
        {
            return self.subscribe_denied(pattern, queue, sid);
        }
        let max = self.options.subscription_tokens_max;
        if max > 0 && subject::tokens(pattern).count() > max {
            let pattern = String::from_utf8_lossy(pattern);
            let text = format!("Permissions Violation for Subscription to \"{pattern}\", too many tokens");
            return self.error(&text);
        }
        let count = self.handle.client.subscription_count();
        if self.subscriptions_max.is_some_and(|max| count >= max) {
            return self.error("maximum subscriptions exceeded");
        }
        if !subject::is_pattern(pattern) {
            return self.error("Invalid Subject");
        }
        self.router().subscribe(&self.handle.client, sid, pattern, queue);
        self.acknowledge();
    }

    #[cold]
    fn subscribe_denied(&mut self, pattern: &[u8], queue: Option<&[u8]>, sid: &[u8]) {
        let pattern = String::from_utf8_lossy(pattern);
        let group = queue
            .map(|queue| format!(" using queue \"{}\"", String::from_utf8_lossy(queue)))
            .unwrap_or_default();
        let text = format!("Permissions Violation for Subscription to \"{pattern}\"{group}");
        let label = self.label();
        if let Some(gate) = &mut self.gate {
            let sid = sid.escape_ascii();
            let what = format!(
                "Subscription Violation - Subject \"{}\"{group}, SID {sid}",
                pattern.escape_debug()
            );
            gate.log(&label, &what);
        }
        self.error(&text);
    }
}
