//! A conversation split anywhere gets the same bytes back, over TCP and over the pipe inside the process.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{client, server};
use crate::support::Wire;

const SCRIPT: &str = "CONNECT {\"verbose\":true,\"headers\":true}\r\nSUB a.* 1\r\nPUB a.b 5\r\nhello\r\nPUB a.b r 2\nhi\n\
    HPUB a.c 12 14\r\nNATS/1.0\r\n\r\nhi\r\nPING\r\nUNSUB 1\r\nPUB a.b 0\r\n\r\nSAY x text\nPING\r\nXXXX\r\n";
const ANSWER: &str = "+OK\r\n+OK\r\n+OK\r\nMSG a.b 1 5\r\nhello\r\n+OK\r\nMSG a.b 1 r 2\r\nhi\r\n\
    +OK\r\nHMSG a.c 1 12 14\r\nNATS/1.0\r\n\r\nhi\r\nPONG\r\n+OK\r\n+OK\r\n+OK\r\nPONG\r\n\
    -ERR 'Unknown Protocol Operation'\r\n";

#[test]
fn over_tcp() {
    let server = server(|_| {});
    let address = server.server().local_addr();
    let mut cuts: Vec<Vec<usize>> = (0..=SCRIPT.len()).step_by(3).map(|at| vec![at]).collect();
    cuts.push((0..SCRIPT.len()).collect());
    for cuts in cuts {
        let mut wire = Wire::connect(address);
        let mut from = 0;
        for at in cuts {
            wire.send(&SCRIPT[from..at]);
            from = at;
        }
        wire.send(&SCRIPT[from..]);
        wire.expect(ANSWER);
        wire.expect_end();
    }
    // Nothing of any of them is left.
    client(&server).expect_nothing();
}

#[test]
fn over_the_pipe() {
    let server = server(|_| {});
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for size in [1, 2, 7, SCRIPT.len()] {
            let mut pipe = server.server().connect_in_process();
            for piece in SCRIPT.as_bytes().chunks(size) {
                pipe.write_all(piece).await.unwrap();
            }
            let mut all = String::new();
            pipe.read_to_string(&mut all).await.unwrap();
            let (info, rest) = all.split_once("\r\n").unwrap();
            assert!(
                info.starts_with("INFO ") && info.contains("\"client_ip\":\"in-process\""),
                "{info}"
            );
            assert_eq!(rest, ANSWER);
        }
    });
}
