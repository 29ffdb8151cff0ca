//! `mesh top` on a terminal: draws over itself, obeys keys, and leaves the terminal as it was, however it ends.

use std::io::Write;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal;
use tokio::sync::mpsc;

use super::sample::{Frame, Sample};
use super::{Monitoring, Sort, Top, View, draw, look};
use crate::cli::{Failure, output, units};

/// The other screen, without cursor and without wrapping; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// How soon the reader of keys notices that it is no longer wanted.
const KEY_PATIENCE: Duration = Duration::from_millis(50);
/// Keys that may wait to be obeyed.
const KEYS_MAX: usize = 16;
/// What a terminal that does not know its size is taken to have.
const SIZE: (u16, u16) = (80, 24);

/// The terminal in our hands; dropped, it is given back.
struct Screen;

impl Screen {
    fn take() -> Result<Self, Failure> {
        terminal::enable_raw_mode().map_err(|error| {
            Failure::failed(format!("cannot read keys from this terminal: {error}"))
                .hint("--count N prints without one")
        })?;
        let screen = Self;
        put(ENTER)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        put(LEAVE).ok();
        terminal::disable_raw_mode().ok();
    }
}

fn put(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What a key means.
enum Key {
    Quit,
    View(View),
    NextView,
    NextSort,
    Pause,
    Scroll(isize),
    Redraw,
}

fn key(event: &Event) -> Option<Key> {
    let Event::Key(pressed) = event else {
        return matches!(event, Event::Resize(..)).then_some(Key::Redraw);
    };
    if pressed.kind == KeyEventKind::Release {
        return None;
    }
    Some(match pressed.code {
        KeyCode::Char('c' | 'd') if pressed.modifiers.contains(KeyModifiers::CONTROL) => Key::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Key::Quit,
        KeyCode::Char('1') => Key::View(View::Connections),
        KeyCode::Char('2') => Key::View(View::Streams),
        KeyCode::Char('3') => Key::View(View::Consumers),
        KeyCode::Tab => Key::NextView,
        KeyCode::Char('o') => Key::NextSort,
        KeyCode::Char(' ' | 'p') => Key::Pause,
        KeyCode::Up | KeyCode::Char('k') => Key::Scroll(-1),
        KeyCode::Down | KeyCode::Char('j') => Key::Scroll(1),
        KeyCode::PageUp => Key::Scroll(-20),
        KeyCode::PageDown => Key::Scroll(20),
        KeyCode::Home => Key::Scroll(isize::MIN),
        _ => return None,
    })
}

/// Reads keys until dropped.
struct Keys {
    pressed: mpsc::Receiver<Key>,
    stop: Arc<AtomicBool>,
}

impl Keys {
    fn read() -> Self {
        let (send, pressed) = mpsc::channel(KEYS_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        // Reading a terminal blocks, so it has a thread. It ends when the terminal does.
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match event::poll(KEY_PATIENCE).and_then(|any| any.then(event::read).transpose()) {
                    Ok(event) => {
                        if let Some(key) = event.as_ref().and_then(key)
                            && send.blocking_send(key).is_err()
                        {
                            return;
                        }
                    }
                    Err(_) => return,
                }
            }
        });
        Self { pressed, stop }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What is on the screen.
struct Shown {
    address: String,
    view: View,
    sort: Sort,
    limit: Option<u16>,
    paused: bool,
    scroll: usize,
    colour: bool,
    before: Option<Sample>,
    frame: Option<Frame>,
    /// Since when there was no answer, and why.
    trouble: Option<(Instant, String)>,
}

/// Shows until a key or a signal ends it.
pub(super) async fn show(pages: &Monitoring, top: Top) -> Result<(), Failure> {
    let mut stop = pin!(output::interrupted());
    let mut shown = Shown {
        address: pages.url(),
        view: top.view.unwrap_or(View::Connections),
        sort: top.sort,
        limit: top.limit,
        paused: false,
        scroll: 0,
        colour: anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never,
        before: None,
        frame: None,
        trouble: None,
    };
    // The first look decides whether there is anything to show, on the screen that the person is on.
    shown.look(pages).await?;
    let screen = Screen::take()?;
    let mut keys = Keys::read();
    let mut ticks = tokio::time::interval(top.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    shown.draw()?;
    loop {
        tokio::select! {
            () = &mut stop => break,
            key = keys.pressed.recv() => match key {
                Some(Key::Quit) | None => break,
                Some(key) => shown.obey(&key),
            },
            _ = ticks.tick() => {
                if !shown.paused && let Err(failure) = shown.look(pages).await {
                    let since = shown.trouble.take().map_or_else(Instant::now, |(since, _)| since);
                    let text = failure.to_string();
                    let why = text.lines().next().unwrap_or_default();
                    let why = why.trim_start_matches("error: ").to_owned();
                    shown.trouble = Some((since, why));
                }
            }
        }
        shown.draw()?;
    }
    drop(screen);
    Ok(())
}

impl Shown {
    async fn look(&mut self, pages: &Monitoring) -> Result<(), Failure> {
        let rows = self
            .limit
            .map_or_else(|| usize::from(size().1) + self.scroll, usize::from);
        let now = look(pages, self.sort, rows).await?;
        self.frame = Some(Frame::between(self.before.as_ref(), &now, self.sort, rows));
        self.before = Some(now);
        self.trouble = None;
        Ok(())
    }

    fn obey(&mut self, key: &Key) {
        match key {
            Key::View(view) => (self.view, self.scroll) = (*view, 0),
            Key::NextView => (self.view, self.scroll) = (self.view.next(), 0),
            Key::NextSort => self.sort = self.sort.next(),
            Key::Pause => self.paused = !self.paused,
            Key::Scroll(isize::MIN) => self.scroll = 0,
            Key::Scroll(by) => self.scroll = self.scroll.saturating_add_signed(*by),
            Key::Quit | Key::Redraw => {}
        }
    }

    fn draw(&mut self) -> Result<(), Failure> {
        let (width, height) = size();
        let lines = self.lines(usize::from(height));
        let mut text = String::from("\x1b[H");
        for (at, line) in lines.iter().enumerate() {
            let end = if at + 1 == lines.len() { "" } else { "\r\n" };
            let (before, after) = line.style(self.colour);
            let shown: String = line.text.chars().take(usize::from(width)).collect();
            text += &format!("{before}{shown}{after}\x1b[K{end}");
        }
        text += "\x1b[J";
        Ok(put(&text)?)
    }

    /// The screen, from its first line to at most its last.
    fn lines(&mut self, height: usize) -> Vec<Line> {
        let Some(frame) = &self.frame else {
            return Vec::new();
        };
        let mut lines: Vec<Line> = draw::head(frame, Some(&self.address))
            .into_iter()
            .map(Line::plain)
            .collect();
        lines[0].kind = Kind::Title;
        if frame.slow_consumers > 0 {
            lines[2].kind = Kind::Warning;
        }
        let state = match (&self.trouble, self.paused) {
            (Some((since, why)), _) => {
                let ago = units::show_duration(Duration::from_secs(since.elapsed().as_secs()));
                Line::of(Kind::Warning, format!("No answer for {ago}: {why}"))
            }
            (None, true) => Line::of(Kind::Warning, "Paused; space goes on".to_owned()),
            (None, false) => Line::plain(String::new()),
        };
        lines.push(state);
        let listed = draw::list(frame, self.view);
        let room = height.saturating_sub(lines.len() + 2);
        self.scroll = self.scroll.min(listed.len().saturating_sub(1));
        let mut listed = listed.into_iter();
        lines.extend(listed.next().map(|head| Line::of(Kind::Head, head)));
        lines.extend(listed.skip(self.scroll).take(room).map(Line::plain));
        lines.truncate(height.saturating_sub(1));
        while lines.len() + 1 < height {
            lines.push(Line::plain(String::new()));
        }
        lines.push(Line::of(Kind::Title, self.menu()));
        lines
    }

    fn menu(&self) -> String {
        let tab = |key: char, view: View, name: &str| match self.view == view {
            true => format!("[{key} {name}]"),
            false => format!(" {key} {name} "),
        };
        format!(
            "{}{}{}  q quit  space pause  o order: {}",
            tab('1', View::Connections, "connections"),
            tab('2', View::Streams, "streams"),
            tab('3', View::Consumers, "consumers"),
            self.sort.name()
        )
    }
}

struct Line {
    kind: Kind,
    text: String,
}

enum Kind {
    Plain,
    Title,
    Head,
    Warning,
}

impl Line {
    fn of(kind: Kind, text: String) -> Self {
        Self { kind, text }
    }

    fn plain(text: String) -> Self {
        Self::of(Kind::Plain, text)
    }

    /// What stands before it and after it.
    fn style(&self, colour: bool) -> (&'static str, &'static str) {
        match (&self.kind, colour) {
            (Kind::Plain, _) | (_, false) => ("", ""),
            (Kind::Title, true) => ("\x1b[1m", "\x1b[0m"),
            (Kind::Head, true) => ("\x1b[7m", "\x1b[0m"),
            (Kind::Warning, true) => ("\x1b[1;31m", "\x1b[0m"),
        }
    }
}

fn size() -> (u16, u16) {
    match terminal::size() {
        Ok((width, height)) if width > 0 && height > 0 => (width, height),
        _ => SIZE,
    }
}
