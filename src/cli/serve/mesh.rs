//! What `mesh serve` makes on itself at its first start: the mesh's stream and buckets, as any client would.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_nats::ConnectOptions;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket};

use crate::Server;
use crate::account::{Auth, GLOBAL, Login, User, is_bcrypt};
use crate::config::Config;
use crate::mesh::setup::{Options, setup};

/// A server that does not answer itself in this time has other troubles.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the server cannot sign in to itself.
const NO_USER: &str =
    "no user without restrictions, in an account with streams, has a password that the server knows in clear";

/// Makes what is missing. The server serves without it all the same: what went wrong is said in the log.
pub(super) async fn make(server: &Server) {
    if server.jetstream().is_none() {
        return;
    }
    let config = server.config();
    let making = async {
        if config.tls.is_none() {
            return connect_and_make(server.local_addr(), ConnectOptions::new(), &config).await;
        }
        let side_door = SideDoor::open().await.map_err(|error| error.to_string())?;
        let options = ConnectOptions::new().local_address(side_door.guest);
        let address = side_door
            .listener
            .local_addr()
            .map_err(|error| error.to_string())?;
        tokio::select! {
            made = connect_and_make(address, options, &config) => made,
            error = side_door.serve(server) => Err(error.to_string()),
        }
    };
    let made = tokio::time::timeout(PATIENCE, making).await;
    let why = match made {
        Ok(Ok(())) => return,
        Ok(Err(why)) => why,
        Err(_) => "the server does not answer itself".to_owned(),
    };
    tracing::warn!("The mesh's stream and buckets are not all there: {why}. `mesh setup` makes them");
}

/// The way in for this process alone, where the port is encrypted: its client need neither believe the server's certificate
/// nor have one of its own. Credentials are asked for all the same.
struct SideDoor {
    listener: TcpListener,
    /// Where the one who may come in comes from.
    guest: SocketAddr,
}

impl SideDoor {
    async fn open() -> io::Result<Self> {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = TcpListener::bind(loopback).await?;
        // A port that is free now: nobody else comes from it.
        let socket = TcpSocket::new_v4()?;
        socket.bind(loopback)?;
        let guest = socket.local_addr()?;
        Ok(Self { listener, guest })
    }

    async fn serve(&self, server: &Server) -> io::Error {
        loop {
            match self.listener.accept().await {
                Ok((mut socket, from)) if from == self.guest => {
                    let mut inside = server.connect_in_process();
                    if let Err(error) = copy_bidirectional(&mut socket, &mut inside).await {
                        return error;
                    }
                }
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    }
}

async fn connect_and_make(
    mut address: SocketAddr,
    options: ConnectOptions,
    config: &Config,
) -> Result<(), String> {
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let options = options.name("mesh serve");
    let options = match &config.auth {
        Auth::Users(users) => {
            let (name, pass) = unrestricted(users.iter(), config).ok_or(NO_USER)?;
            options.user_and_password(name, pass)
        }
        _ if !config.has_streams(GLOBAL) => return Err(format!("the account {GLOBAL} has no streams")),
        Auth::Open => options,
        Auth::Token(token) if !is_bcrypt(token) => options.token(token.clone()),
        Auth::User { user, pass } if !is_bcrypt(pass) => {
            options.user_and_password(user.clone(), pass.clone())
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

/// The first user by name that may do everything where there are streams, with the password in clear.
fn unrestricted<'a>(users: impl Iterator<Item = &'a Arc<User>>, config: &Config) -> Option<(String, String)> {
    let usable = |user: &User| match &user.login {
        Login::Password(pass) if user.permissions.is_none() && !is_bcrypt(pass) => {
            Some((user.name.clone(), pass.clone()))
        }
        _ => None,
    };
    users
        .filter(|user| config.has_streams(&user.account))
        .filter_map(|user| usable(user))
        .min()
}
