//! Reload: what changes changes for those who are in, nobody else notices, and a refused one changes nothing.

use rustix::process::Signal;

use crate::support::{Process, Wire};

use super::{Site, mesh};

const CHANGED: &str = "Reloaded server configuration: changed ";

fn site(users: &str, more: &str) -> String {
    format!("port: -1\nmonitor_port: 0\nauthorization {{ users: [ {users} ] }}\n{more}\n")
}

fn user(name: &str, permissions: &str) -> String {
    format!("{{ user: {name}, password: p{name}, permissions {{ {permissions} }} }}\n")
}

fn login(process: &Process, name: &str) -> Wire {
    Wire::quiet(
        process.address(),
        &format!("\"user\":\"{name}\",\"pass\":\"p{name}\""),
    )
}

/// Sends HUP and waits until the log has said so `times` times.
fn reload(process: &Process, says: &str, times: usize) -> String {
    process.signal(Signal::HUP);
    told(process, says, times)
}

/// Waits until the log has said so `times` times.
fn told(process: &Process, says: &str, times: usize) -> String {
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    loop {
        let log = process.wait_for("Listening");
        if log.matches(says).count() >= times {
            return log;
        }
        assert!(std::time::Instant::now() < deadline, "no {says:?} in {log}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn credentials_and_permissions_change_for_those_who_are_in() {
    let all = "publish: \">\", subscribe: \">\"";
    let names = ["stays", "goes", "shrinks", "turns"];
    let users: String = names.iter().map(|name| user(name, all)).collect();
    let conf = Site::new(&site(&users, ""));
    let process = conf.serve(&[]);
    let mut wires = names.map(|name| login(&process, name));
    for wire in &mut wires {
        wire.send("SUB a.> 1\r\nSUB b q 2\r\nSUB c.> 3\r\n");
        wire.expect_nothing();
    }
    let [stays, goes, shrinks, turns] = &mut wires;

    let shrunk = user(
        "shrinks",
        "publish: \"a.>\", subscribe { allow: [\"a.>\", \"c.>\"], deny: \"c.secret\" }",
    );
    let turned = user("turns", all).replace("pturns", "other");
    conf.write(&site(&(user("stays", all) + &shrunk + &turned), ""));
    reload(&process, CHANGED, 1);

    goes.expect("-ERR 'Authorization Violation'\r\n");
    goes.expect_end();
    turns.expect("-ERR 'Authorization Violation'\r\n");
    turns.expect_end();
    shrinks
        .expect("-ERR 'Permissions Violation for Subscription to \"b\" using queue \"q\" (sid \"2\")'\r\n");
    shrinks.ask(
        "PUB b 1\r\nx\r\n",
        "-ERR 'Permissions Violation for Publish to \"b\"'\r\n",
    );
    shrinks.ask(
        "SUB b 9\r\n",
        "-ERR 'Permissions Violation for Subscription to \"b\"'\r\n",
    );
    // What it still has goes on; what is denied now is left out at delivery, cached routes included.
    stays.send("PUB c.secret 1\r\nx\r\nPUB a.x 1\r\ny\r\n");
    stays.expect("MSG c.secret 3 1\r\nx\r\nMSG a.x 1 1\r\ny\r\n");
    shrinks.expect("MSG a.x 1 1\r\ny\r\n");
    shrinks.expect_nothing();

    // Back again: what was left out is delivered again.
    let users: String = names.iter().map(|name| user(name, all)).collect();
    conf.write(&site(&users, ""));
    reload(&process, CHANGED, 2);
    stays.ask("PUB c.secret 1\r\nz\r\n", "MSG c.secret 3 1\r\nz\r\n");
    shrinks.expect("MSG c.secret 3 1\r\nz\r\n");
    shrinks.send("PUB b 1\r\nw\r\n");
    stays.expect("MSG b 2 1\r\nw\r\n");
    login(&process, "goes");
}

#[test]
fn limits_change_and_what_cannot_change_is_refused() {
    let conf = Site::new("port: -1\nmonitor_port: 0\nmax_payload: 100\nmax_subscriptions: 1\n");
    let process = conf.serve(&[]);
    let mut wire = Wire::quiet(process.address(), "");
    wire.ask(
        "SUB a 1\r\nSUB b 2\r\n",
        "-ERR 'maximum subscriptions exceeded'\r\n",
    );

    conf.write("port: -1\nmonitor_port: 0\nmax_payload: 10\nmax_subscriptions: 2\nlogtime: true\n");
    let log = reload(&process, CHANGED, 1);
    assert!(log.contains("changed max_payload, max_subscriptions"), "{log}");
    wire.send("SUB b 2\r\n");
    wire.expect_nothing();
    assert_eq!(Wire::connect(process.address()).info()["max_payload"], 10);
    wire.ask("PUB a 11\r\n", "-ERR 'Maximum Payload Violation'\r\n");

    for (text, why) in [
        (
            "port: -1\nmonitor_port: 0\nserver_name: x\nmax_payload: 50\n",
            "only by a restart: server_name",
        ),
        (
            "port: -1\nmonitor_port: 0\nprot: 1\nmax_payload: 50\n",
            "unknown field \"prot\"",
        ),
        (
            "port: -1\nmonitor_port: 0\nmax_payload: 50\ninclude gone.conf\n",
            "cannot read",
        ),
        (
            "port: -1\nmonitor_port: 0\nmax_payload: 50\nmax_pending: 49\n",
            "max_payload (50) cannot be higher than max_pending (49)",
        ),
    ] {
        conf.write(text);
        let log = reload(&process, why, 1);
        assert!(log.contains("Reload refused, nothing has changed"), "{log}");
        assert_eq!(Wire::connect(process.address()).info()["max_payload"], 10);
    }
    // By the command, as well as by the signal.
    conf.write("port: -1\nmonitor_port: 0\nmax_payload: 77\n");
    let (done, text) = mesh(&["ctl", "reload", &process.id().to_string()]);
    assert!(done.status.success(), "{text}");
    told(&process, CHANGED, 2);
    let wire = Wire::connect(process.address());
    assert_eq!(wire.info()["max_payload"], 77);
}

/// As in nats-server: the last to come are sent away.
#[test]
fn who_is_beyond_a_limit_that_has_shrunk_is_sent_away() {
    let site = |more: &str, limits: &str| {
        format!(
            "port: -1\nmonitor_port: 0\n{more}\naccounts {{
                A {{ users: [ {{ user: a, password: pa }} ], limits {{ {limits} }} }}
                B {{ users: [ {{ user: b, password: pb }} ] }} }}\n"
        )
    };
    let conf = Site::new(&site("", ""));
    let process = conf.serve(&[]);
    let mut first = login(&process, "a");
    let mut other = login(&process, "b");
    let mut second = login(&process, "a");
    let mut third = login(&process, "a");
    second.send("SUB a 1\r\nSUB b 2\r\n");
    second.expect_nothing();

    conf.write(&site("", "max_connections: 2"));
    reload(&process, CHANGED, 1);
    third.expect("-ERR 'maximum account active connections exceeded'\r\n");
    third.expect_end();
    conf.write(&site("", "max_subscriptions: 1"));
    reload(&process, CHANGED, 2);
    second.expect("-ERR 'maximum subscriptions exceeded'\r\n");
    second.expect_end();
    for wire in [&mut first, &mut other] {
        wire.expect_nothing();
    }
    // Of all connections the first stays.
    conf.write(&site("max_connections: 1", ""));
    reload(&process, CHANGED, 3);
    other.expect("-ERR 'maximum connections exceeded'\r\n");
    other.expect_end();
}

#[test]
fn a_server_without_a_file_has_nothing_to_reload() {
    let process = Process::mesh(&[]);
    process.signal(Signal::HUP);
    process.wait_for("there is no configuration file to read again");
    Wire::quiet(process.address(), "");
}

#[test]
fn a_reload_under_load_loses_nothing() {
    let conf = Site::new(&site(&user("a", "publish: \">\", subscribe: \">\""), ""));
    let process = conf.serve(&[]);
    let mut receiver = login(&process, "a");
    receiver.send("SUB load 1\r\n");
    receiver.expect_nothing();
    let mut sender = login(&process, "a");
    const COUNT: usize = 50_000;
    let sending = std::thread::spawn(move || {
        for chunk in 0..COUNT / 100 {
            let batch: String = (0..100)
                .map(|at| format!("PUB load 6\r\n{:06}\r\n", chunk * 100 + at))
                .collect();
            sender.send(batch);
        }
        sender.expect_nothing();
    });
    let reloading = std::thread::spawn(move || {
        for times in 1..=10 {
            let max = 1_000_000 + times;
            conf.write(&site(
                &user("a", "publish: \">\", subscribe: \">\""),
                &format!("max_payload: {max}"),
            ));
            reload(&process, CHANGED, times);
        }
        process
    });
    for at in 0..COUNT {
        receiver.expect(format!("MSG load 1 6\r\n{at:06}\r\n"));
    }
    sending.join().unwrap();
    reloading.join().unwrap();
}
