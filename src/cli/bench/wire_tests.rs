use super::*;

#[derive(Debug, PartialEq)]
enum Seen {
    Message(Vec<u8>, usize, Vec<u8>),
    Control(Vec<u8>),
}

fn scan(scanner: &mut Scanner, piece: &[u8], seen: &mut Vec<Seen>) {
    let mut buffer = Vec::new();
    let carried = scanner.carry(&mut buffer);
    buffer[carried..carried + piece.len()].copy_from_slice(piece);
    scanner
        .scan(&buffer[..carried + piece.len()], |frame| {
            seen.push(match frame {
                Frame::Message { line, size, body } => Seen::Message(line.to_vec(), size, body.to_vec()),
                Frame::Control(line) => Seen::Control(line.to_vec()),
            });
            Ok(())
        })
        .unwrap();
}

#[test]
fn frames_are_found_however_they_are_cut() {
    let wire = b"INFO {}\r\nMSG a.b 1 5\r\nh\nllo\r\nMSG a 1 _INBOX.x 0\r\n\r\nPING\nHMSG a 12 12 14\r\nNATS/1.0\r\n\r\nhi\r\nPONG\r\n";
    let expected = [
        Seen::Control(b"INFO {}".to_vec()),
        Seen::Message(b"MSG a.b 1 5".to_vec(), 5, b"h\nllo".to_vec()),
        Seen::Message(b"MSG a 1 _INBOX.x 0".to_vec(), 0, Vec::new()),
        Seen::Control(b"PING".to_vec()),
        Seen::Message(b"HMSG a 12 12 14".to_vec(), 14, b"NATS/1.0\r\n\r\nhi".to_vec()),
        Seen::Control(b"PONG".to_vec()),
    ];
    for first in 0..=wire.len() {
        for second in first..=wire.len() {
            let mut whole = Scanner::new(usize::MAX);
            let mut heads = Scanner::new(2);
            let (mut seen_whole, mut seen_heads) = (Vec::new(), Vec::new());
            for piece in [&wire[..first], &wire[first..second], &wire[second..]] {
                scan(&mut whole, piece, &mut seen_whole);
                scan(&mut heads, piece, &mut seen_heads);
            }
            assert_eq!(seen_whole, expected);
            assert!(whole.settled() && heads.settled());
            assert_eq!(seen_heads.len(), expected.len());
            for (head, whole) in seen_heads.iter().zip(&expected) {
                if let (Seen::Message(line, size, head), Seen::Message(line_whole, _, body)) = (head, whole) {
                    assert_eq!(line, line_whole);
                    assert!(head.len() >= 2.min(*size) && body.starts_with(head));
                }
            }
        }
    }
}

#[test]
fn urls_name_servers_and_logins() {
    let cases = [
        ("nats://127.0.0.1:7778", "127.0.0.1:7778", ""),
        ("127.0.0.1", "127.0.0.1:4222", ""),
        (
            "nats://me:secret@127.0.0.1:1",
            "127.0.0.1:1",
            r#""user":"me","pass":"secret""#,
        ),
        (
            "nats://token@127.0.0.1:1/",
            "127.0.0.1:1",
            r#""auth_token":"token""#,
        ),
        ("nats://[::1]:5", "[::1]:5", ""),
        ("nats://[::1]", "[::1]:4222", ""),
    ];
    for (url, address, login) in cases {
        let target = Target::parse(url).unwrap();
        assert_eq!(target.address.to_string(), address, "{url}");
        assert!(target.connect.contains(login), "{url}: {}", target.connect);
    }
    assert!(Target::parse("nats://127.0.0.1:notaport").is_err());
}

#[test]
fn sizes_are_read_from_the_end_of_a_line() {
    for (line, size) in [
        ("MSG a 1 0", 0),
        ("MSG a 1 16384", 16384),
        ("HMSG a.9 1 12 34", 34),
        ("MSG", 0),
    ] {
        assert_eq!(trailing_number(line.as_bytes()), size, "{line}");
    }
}
