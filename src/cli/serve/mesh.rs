//! What `mesh serve` makes on itself at its first start: the mesh's stream and buckets, as any client would.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use async_nats::ConnectOptions;

use crate::Server;
use crate::account::{Auth, Login, User, Users, is_bcrypt};
use crate::mesh::setup::{Options, setup};

/// A server that does not answer itself in this time has other troubles.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the server cannot sign in to itself.
const NO_USER: &str = "no user without restrictions has a password that the server knows in clear";

/// Makes what is missing. The server serves without it all the same: what went wrong is said in the log.
pub(super) async fn make(server: &Server) {
    if server.jetstream().is_none() {
        return;
    }
    let auth = server.config().auth;
    let made = tokio::time::timeout(PATIENCE, connect_and_make(server.local_addr(), &auth)).await;
    let why = match made {
        Ok(Ok(())) => return,
        Ok(Err(why)) => why,
        Err(_) => "the server does not answer itself".to_owned(),
    };
    tracing::warn!("The mesh's stream and buckets are not all there: {why}. `mesh setup` makes them");
}

async fn connect_and_make(mut address: SocketAddr, auth: &Auth) -> Result<(), String> {
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let options = ConnectOptions::new().name("mesh serve");
    let options = match auth {
        Auth::Open => options,
        Auth::Token(token) if !is_bcrypt(token) => options.token(token.clone()),
        Auth::User { user, pass } if !is_bcrypt(pass) => {
            options.user_and_password(user.clone(), pass.clone())
        }
        Auth::Users(users) => {
            let (name, pass) = unrestricted(users).ok_or(NO_USER)?;
            options.user_and_password(name, pass)
        }
        Auth::Token(_) | Auth::User { .. } | Auth::Operator(_) => return Err(NO_USER.to_owned()),
    };
    let client = options
        .connect(format!("nats://{address}"))
        .await
        .map_err(|error| error.to_string())?;
    let jetstream = async_nats::jetstream::new(client.clone());
    let made = setup(&jetstream, &Options::default(), false).await;
    client.drain().await.ok();
    made.map_err(|error| error.to_string())
}

/// The first user by name that may do everything, with the password in clear.
fn unrestricted(users: &Users) -> Option<(String, String)> {
    let usable = |user: &User| match &user.login {
        Login::Password(pass) if user.permissions.is_none() && !is_bcrypt(pass) => {
            Some((user.name.clone(), pass.clone()))
        }
        _ => None,
    };
    users.iter().filter_map(|user| usable(user)).min()
}
