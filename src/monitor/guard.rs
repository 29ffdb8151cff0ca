//! Who is answered: the `Host` and `Origin` a browser shows, and credentials beyond loopback.
//!
//! A page on the web can make a browser connect to a loopback port under a name of its own (DNS rebinding). It cannot
//! make the browser lie about that name, so only names that are ours are answered.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::account::jwt::Peer;
use crate::account::{Auth, Verdict};
use crate::protocol::connect::Connect;

use super::View;
use super::params::Problem;

/// Lets a request pass, or says why not. `open` pages need no credentials.
pub(super) async fn check(
    view: &View,
    headers: &HeaderMap,
    authority: Option<&str>,
    open: bool,
) -> Result<(), Problem> {
    // An absolute-form request names its authority; else the Host header does. HTTP/1.0 by hand has neither: no browser.
    let host = authority
        .map(ToOwned::to_owned)
        .or_else(|| text(headers.get(header::HOST)));
    if let Some(host) = host.filter(|host| !is_ours(view, name_of(host))) {
        let name: String = name_of(&host).chars().take(80).collect();
        return Err(
            Problem::forbidden(format!("this server is not called {name:?}")).fix(format!(
                "ask for it as {}, or start it with --monitor-host NAME",
                view.address
            )),
        );
    }
    if let Some(origin) = text(headers.get(header::ORIGIN)) {
        let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
        if !is_ours(view, name_of(authority)) {
            return Err(Problem::forbidden(
                "pages of other origins are not answered".to_owned(),
            ));
        }
    }
    if open || view.address.ip().is_loopback() {
        return Ok(());
    }
    let (tls, auth) = view.context.terms();
    if matches!(*auth, Auth::Operator(_)) {
        // No user's JWT is shown here; the token that stands in for none lets clients in, not onlookers.
        return Err(
            Problem::forbidden("in operator mode this page is shown on loopback alone".to_owned())
                .fix("let monitoring listen on 127.0.0.1, or ask in the system account"),
        );
    }
    if !auth.is_required() {
        return Ok(());
    }
    let shown = headers.get(header::AUTHORIZATION).and_then(credentials);
    // Where certificates say who somebody is, users have no password, and a name alone must not do for one.
    let by_certificate = tls.is_some_and(|tls| tls.options().map);
    let is_whole = |connect: &Connect| !by_certificate || connect.pass.as_deref() != Some("");
    if let Some(connect) = shown.filter(is_whole) {
        let verdict = match auth.check_from(&connect, None, Peer::default()) {
            Verdict::Later(verification) => view.context.verifier.verify(verification).await,
            verdict => verdict,
        };
        if matches!(verdict, Verdict::Admitted(_)) {
            return Ok(());
        }
    }
    Err(
        Problem::unauthorized("this page needs the credentials of the server".to_owned())
            .fix("send `Authorization: Bearer TOKEN`, or user and password (curl -u USER:PASS)"),
    )
}

/// Credentials of a header: `Bearer <token>` or `Basic <base64 of user:pass>`.
fn credentials(header: &HeaderValue) -> Option<Connect> {
    let (scheme, rest) = header.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Connect {
            auth_token: Some(rest.trim().to_owned()),
            ..Connect::default()
        });
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (user, pass) = decoded.split_once(':')?;
    Some(Connect {
        user: Some(user.to_owned()),
        pass: Some(pass.to_owned()),
        // Tools that know users and passwords only may show a token as the password.
        auth_token: Some(pass.to_owned()),
        ..Connect::default()
    })
}

fn text(value: Option<&HeaderValue>) -> Option<String> {
    // What is no text is no name of ours either, so it is kept and refused.
    value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// The name in `name`, `name:port`, `[v6]` or `[v6]:port`.
fn name_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or(authority, |(name, _)| name);
    }
    let name = authority.rsplit_once(':').map_or(authority, |(name, _)| name);
    name.strip_suffix('.').unwrap_or(name)
}

fn is_ours(view: &View, name: &str) -> bool {
    if let Ok(ip) = name.parse::<IpAddr>() {
        let bound = view.address.ip();
        // A number cannot be pointed elsewhere; bound to all addresses, each of them is ours.
        return ip.is_loopback() || bound.is_unspecified() || ip == bound;
    }
    name.eq_ignore_ascii_case("localhost") || view.hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_authorities() {
        let table = [
            ("localhost", "localhost"),
            ("localhost:8778", "localhost"),
            ("Broker.internal.:80", "Broker.internal"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:8778", "::1"),
            ("[::1]", "::1"),
            ("[::1", "[::1"),
            ("", ""),
        ];
        for (authority, name) in table {
            assert_eq!(name_of(authority), name, "{authority}");
        }
    }

    #[test]
    fn credentials_of_headers() {
        let of = |text: &str| credentials(&HeaderValue::from_str(text).unwrap());
        assert_eq!(
            of("Bearer  s3cret ").unwrap().auth_token.as_deref(),
            Some("s3cret")
        );
        let basic = of(&format!("basic {}", STANDARD.encode("u:p:q"))).unwrap();
        assert_eq!(
            (basic.user.as_deref(), basic.pass.as_deref()),
            (Some("u"), Some("p:q"))
        );
        for bad in ["Bearer", "Digest x", "Basic !!", "Basic dQ=="] {
            assert!(of(bad).is_none(), "{bad}");
        }
    }
}
