//! Certificates renewed under connections that live.

use rcgen::DnType;
use rustix::process::Signal;

use crate::support::Process;

use super::{Authority, Secured};

fn reload(process: &Process, says: &str) -> String {
    process.signal(Signal::HUP);
    process.wait_for(says)
}

#[test]
fn a_renewed_certificate_is_shown_to_who_comes_next() {
    let (authority, next) = (Authority::new(), Authority::new());
    let process = authority.serve("", "");
    let mut before = Secured::connect(process.address(), authority.believer()).unwrap();
    before.login("").unwrap();
    assert!(Secured::connect(process.address(), next.believer()).is_err());

    // Broken first: it is refused, with the line that names it, and nothing changes.
    authority.write("server.pem", "nothing");
    reload(&process, "Reload refused, nothing has changed");
    let says = format!(
        "mesh.conf:4:3: tls: {}: there is no certificate in it",
        authority.text("server.pem")
    );
    // One line of the log for each problem, behind the one that says what became of the reload.
    process.wait_for(&says);
    let mut still = Secured::connect(process.address(), authority.believer()).unwrap();
    assert_eq!(still.login("").unwrap(), "PONG");

    for kind in ["pem", "key"] {
        std::fs::copy(
            next.path(&format!("server.{kind}")),
            authority.path(&format!("server.{kind}")),
        )
        .unwrap();
    }
    reload(&process, "Reloaded server configuration: changed tls");
    let mut after = Secured::connect(process.address(), next.believer()).unwrap();
    assert_eq!(after.login("").unwrap(), "PONG");
    assert!(Secured::connect(process.address(), authority.believer()).is_err());
    for client in [&mut before, &mut still] {
        assert_eq!(client.ask("SUB a 1\r\nPUB a 2\r\nhi\r\n").unwrap(), "MSG a 1 2");
    }

    // Read anew and found the same.
    reload(&process, "changed no setting of the server");
    // Without the block who comes next is in clear.
    authority.write("mesh.conf", "port: -1\nmonitor_port: -1\n");
    process.signal(Signal::HUP);
    while crate::support::Wire::connect(process.address())
        .info()
        .get("tls_required")
        .is_some()
    {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn who_is_no_longer_named_is_sent_away() {
    let authority = Authority::new();
    for name in ["stays", "goes"] {
        authority.client(name, Vec::new(), &[(DnType::CommonName, name)]);
    }
    let users = |names: &[&str]| {
        let users: Vec<_> = names
            .iter()
            .map(|name| format!("{{ user: \"CN={name}\" }}"))
            .collect();
        format!("authorization {{ users: [ {} ] }}", users.join(", "))
    };
    let tls = format!("{}, verify_and_map: true", authority.believed());
    let process = authority.serve(&tls, &users(&["stays", "goes"]));
    let [mut stays, mut goes] = ["stays", "goes"].map(|name| {
        let mut client = Secured::connect(process.address(), authority.bearer(name)).unwrap();
        assert_eq!(client.login("").unwrap(), "PONG");
        client
    });
    authority.write("mesh.conf", &authority.conf(&tls, &users(&["stays"])));
    reload(&process, "Reloaded server configuration: changed authorization");
    assert_eq!(goes.line().unwrap(), "-ERR 'Authorization Violation'");
    assert_eq!(stays.ask("PING\r\n").unwrap(), "PONG");

    let other = format!("{tls}, pinned_certs: [\"{}\"]", "0".repeat(64));
    authority.write("mesh.conf", &authority.conf(&other, &users(&["stays"])));
    reload(&process, "Reloaded server configuration: changed tls");
    assert!(stays.line().is_err());
    process.wait_for("its key is none of pinned_certs any more");
}
