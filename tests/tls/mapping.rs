//! Who a client is by its certificate.

use rcgen::{DnType, SanType};

use crate::support::{Process, Wire};

use super::authority::page;
use super::{Authority, Secured};

fn email(text: &str) -> SanType {
    SanType::Rfc822Name(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// What the server says to a client that shows `name.pem`.
fn come(process: &Process, authority: &Authority, name: &str, fields: &str) -> std::io::Result<Secured> {
    let mut client = Secured::connect(process.address(), authority.bearer(name))?;
    match client.login(fields)?.as_str() {
        "PONG" => Ok(client),
        other => Err(std::io::Error::other(other.to_owned())),
    }
}

#[test]
fn a_certificate_is_asked_for_and_must_be_believed() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.client("mine", Vec::new(), &[(DnType::CommonName, "mine")]);
    other.client("foreign", Vec::new(), &[(DnType::CommonName, "foreign")]);
    let process = authority.serve(&format!("{}, verify: true", authority.believed()), "");
    let info = Wire::connect(process.address()).info().clone();
    assert_eq!(
        (&info["tls_required"], &info["tls_verify"]),
        (&true.into(), &true.into())
    );
    let _mine = come(&process, &authority, "mine", "").unwrap();
    let row = page(&process, "/connz?auth=1")["connections"][0].clone();
    assert_eq!(row["tls_peer_certs"][0]["subject"], "CN=mine");
    assert_eq!(
        row["tls_peer_certs"][0]["cert_sha256"].as_str().unwrap().len(),
        64
    );

    let none =
        Secured::connect(process.address(), authority.believer()).and_then(|mut client| client.login(""));
    assert!(none.unwrap_err().to_string().contains("CertificateRequired"));
    process.wait_for("TLS Handshake Failure: TLS handshake error: peer sent no certificates");
    // Believes the right server, shows what another authority has issued.
    for kind in ["pem", "key"] {
        std::fs::copy(
            other.path(&format!("foreign.{kind}")),
            authority.path(&format!("foreign.{kind}")),
        )
        .unwrap();
    }
    assert!(come(&process, &authority, "foreign", "").is_err());
    process.wait_for("TLS Handshake Failure: TLS handshake error: invalid peer certificate: UnknownIssuer");
}

#[test]
fn users_are_named_by_certificates() {
    let authority = Authority::new();
    let organisation = |name| [(DnType::OrganizationName, "Mesh"), (DnType::CommonName, name)];
    authority.client(
        "by-email",
        vec![dns("nobody"), email("a@mesh.example")],
        &organisation("x"),
    );
    authority.client("by-dns", vec![dns("orders.mesh.example")], &organisation("x"));
    authority.client("by-uri", vec![uri("spiffe://mesh/audit")], &organisation("x"));
    authority.client(
        "by-subject",
        vec![email("unknown@mesh.example")],
        &organisation("plain"),
    );
    authority.client("nobody", vec![email("b@mesh.example")], &organisation("nobody"));
    let users = "authorization { users: [
        { user: \"a@mesh.example\", permissions { publish: \"a.>\" } }
        { user: \"orders.mesh.example\", permissions { publish: \"orders.>\" } }
        { user: \"spiffe://mesh/audit\", permissions { publish: \"audit.>\" } }
        { user: \"CN=plain, O=Mesh\", password: \"secret\", permissions { publish: \"plain.>\" } }
    ] }";
    let process = authority.serve(&format!("{}, verify_and_map: true", authority.believed()), users);
    assert!(!process.wait_for("Listening").contains("whoever knows the name"));
    for (name, mine, user) in [
        ("by-email", "a.1", "a@mesh.example"),
        ("by-dns", "orders.1", "orders.mesh.example"),
        ("by-uri", "audit.1", "spiffe://mesh/audit"),
        ("by-subject", "plain.1", "CN=plain, O=Mesh"),
    ] {
        // What it says of itself does not count, but for a password where there is one.
        let mut fields = ",\"user\":\"orders.mesh.example\"".to_owned();
        if name == "by-subject" {
            let refused = come(&process, &authority, name, &fields).err().unwrap();
            assert_eq!(refused.to_string(), "-ERR 'Authorization Violation'");
            process.wait_for("password of user \"CN=plain, O=Mesh\"");
            fields += ",\"pass\":\"secret\"";
        }
        let mut client = come(&process, &authority, name, &fields).unwrap();
        assert_eq!(
            client.ask(&format!("PUB {mine} 0\r\n\r\nPING\r\n")).unwrap(),
            "PONG",
            "{name}"
        );
        let denied = client.ask("PUB other.1 0\r\n\r\n").unwrap();
        assert_eq!(
            denied, "-ERR 'Permissions Violation for Publish to \"other.1\"'",
            "{name}"
        );
        let row = page(&process, "/connz?auth=1")["connections"][0].clone();
        assert_eq!(row["authorized_user"], user, "{name}");
        drop(client);
        process.wait_for("client connection closed");
        while page(&process, "/connz")["num_connections"] != 0 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    let password = ",\"user\":\"CN=plain, O=Mesh\",\"pass\":\"secret\"";
    let refused = come(&process, &authority, "nobody", password).err().unwrap();
    assert_eq!(refused.to_string(), "-ERR 'Authorization Violation'");
    process
        .wait_for("none of the users is named by its certificate: \"b@mesh.example\", \"CN=nobody,O=Mesh\"");
}

/// The user that a certificate names brings its account along.
#[test]
fn certificates_lead_to_accounts() {
    let authority = Authority::new();
    for name in ["one", "two"] {
        authority.client(name, vec![dns(name)], &[]);
    }
    let accounts = "accounts { ONE { users: [ { user: one } ] }, TWO { users: [ { user: two } ] } }";
    let tls = format!("{}, verify_and_map: true", authority.believed());
    let process = authority.serve(&tls, accounts);
    let [mut one, mut two] = ["one", "two"].map(|name| come(&process, &authority, name, "").unwrap());
    assert_eq!(two.ask("SUB a 1\r\nPING\r\n").unwrap(), "PONG");
    assert_eq!(one.ask("PUB a 1\r\n1\r\nPING\r\n").unwrap(), "PONG");
    // What comes first in the one account is what was published there.
    assert_eq!(two.ask("PUB a 2\r\n22\r\n").unwrap(), "MSG a 1 2");
    let rows = page(&process, "/connz?auth=1")["connections"].clone();
    assert_eq!(
        (&rows[0]["account"], &rows[1]["account"]),
        (&"ONE".into(), &"TWO".into())
    );
}

#[test]
fn keys_are_pinned() {
    let authority = Authority::new();
    for name in ["pinned", "other"] {
        authority.client(name, Vec::new(), &[(DnType::CommonName, name)]);
    }
    let believed = authority.believed();
    let process = authority.serve(&format!("{believed}, verify: true"), "");
    come(&process, &authority, "pinned", "").unwrap();
    let row = page(&process, "/connz?auth=1&state=any")["connections"][0].clone();
    let key = row["tls_peer_certs"][0]["spki_sha256"]
        .as_str()
        .unwrap()
        .to_ascii_uppercase();
    drop(process);

    let process = authority.serve(
        &format!("{believed}, verify: true, pinned_certs: [\"{key}\"]"),
        "",
    );
    come(&process, &authority, "pinned", "").unwrap();
    assert!(come(&process, &authority, "other", "").is_err());
    process.wait_for("TLS Handshake Failure: its key is none of pinned_certs: ");
}

#[test]
fn the_mesh_is_made_behind_tls() {
    let authority = Authority::new();
    let users = "authorization { users: [ { user: \"CN=x\" } ] }";
    let tls = format!("{}, verify_and_map: true", authority.believed());
    authority.write("mesh.conf", &authority.conf(&tls, users));
    let store = tempfile::TempDir::new().unwrap();
    let mut command = crate::support::process::mesh_command();
    command
        .args(["serve", "-c", &authority.text("mesh.conf"), "--store-dir"])
        .arg(store.path());
    let process = Process::listening(command, store);
    let log = process.wait_for("Server is ready");
    assert!(!log.contains("are not all there"), "{log}");
    assert_ne!(page(&process, "/jsz")["streams"], 0);
}
