//! Pages of documentation as tests see them: their fenced blocks, run as they are written.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use super::PATIENCE;

/// How a shell block is run: like a careful person does, who stops at the first mistake.
pub const SHELL: [&str; 6] = ["timeout", "120", "bash", "-euo", "pipefail", "-c"];

/// A fenced block.
#[derive(Clone, Debug)]
pub struct Block {
    pub page: &'static str,
    /// The first word behind the fence.
    pub language: String,
    /// What follows it: what the block is to the tests.
    pub note: String,
    pub text: String,
}

impl Block {
    /// The name under which other blocks of the page find it, if it is a file.
    pub fn file(&self) -> Option<&str> {
        self.note.strip_prefix("file=")
    }
}

/// The blocks of a page, in order.
pub fn blocks(page: &'static str) -> Vec<Block> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => {
                let (language, note) = info.split_once(' ').unwrap_or((info, ""));
                assert!(!language.is_empty(), "{page}: a block without a language");
                open = Some(Block {
                    page,
                    language: language.to_owned(),
                    note: note.to_owned(),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page}: a block without an end");
    blocks
}

/// Runs `text`, which stands in `block`, as the last argument of `program`, with the binary under test on the path. It must
/// succeed; what it printed is returned, and what it left running is ended.
pub fn run(block: &Block, text: &str, program: &[&str], settle: impl FnOnce(&mut Command)) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_mesh")).parent().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    // Files, as a pipe would stay open for as long as anything that was left running.
    let [mut out, mut err] = [(); 2].map(|()| tempfile::tempfile().unwrap());
    let mut command = Command::new(program[0]);
    command
        .args(&program[1..])
        .arg(text)
        .env("PATH", format!("{}:{path}", binary.display()))
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(err.try_clone().unwrap())
        .process_group(0);
    settle(&mut command);
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program[0]));
    let status = child.wait().unwrap();
    // Nobody may be left.
    kill_process_group(Pid::from_child(&child), Signal::KILL).ok();
    let [out, err] = [&mut out, &mut err].map(|file| {
        let mut said = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut said).unwrap();
        String::from_utf8_lossy(&said).into_owned()
    });
    let page = block.page;
    assert!(status.success(), "{page}:\n{text}\n{status}, said\n{out}\n{err}");
    out
}

/// Holds the conversation of a `text` block that begins with `$ nc`; whether it is one.
pub fn converse(block: &Block, address: SocketAddr) -> bool {
    let mut lines = block.text.lines();
    if lines.next() != Some("$ nc localhost 7778") {
        return false;
    }
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut socket = BufReader::new(socket);
    let mut heard = String::new();
    socket.read_line(&mut heard).unwrap();
    assert!(heard.starts_with("INFO "));
    for line in lines {
        if let Some(typed) = line.strip_prefix("> ") {
            socket
                .get_mut()
                .write_all(format!("{typed}\n").as_bytes())
                .unwrap();
            continue;
        }
        heard.clear();
        socket.read_line(&mut heard).unwrap();
        assert_eq!(heard.trim_end(), line, "{}", block.page);
    }
    true
}
