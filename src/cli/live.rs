//! A page once, or again every second until Ctrl-C: in place on a terminal, one after the other elsewhere.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};

use super::ui;
use crate::rt::signal;

const REFRESH: Duration = Duration::from_secs(1);
const DEFAULT_ROWS: usize = 24;

/// What a command shows: data for stdout, and what is to be said about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) text: String,
    pub(super) notes: Vec<String>,
}

/// Shows one page.
pub(super) fn once(page: &Page) -> io::Result<()> {
    page.notes.iter().for_each(|note| ui::report(note));
    ui::print(&page.text)
}

/// Shows a page every second until SIGINT or SIGTERM, then exits with 0. `in_place` is for tables: they take
/// the terminal's second screen, if stdout is one.
pub(super) async fn repeat(
    in_place: bool,
    mut page: impl AsyncFnMut() -> anyhow::Result<Page>,
) -> anyhow::Result<ExitCode> {
    let screen = if in_place && io::stdout().is_terminal() { Some(Screen::enter()?) } else { None };
    let pages = async {
        let mut ticks = interval(REFRESH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = Vec::new();
        loop {
            ticks.tick().await;
            let page = page().await?;
            match &screen {
                Some(screen) => screen.draw(&page)?,
                None => {
                    page.notes.iter().filter(|note| !said.contains(*note)).for_each(|note| ui::report(note));
                    ui::print(&page.text)?;
                    said = page.notes;
                }
            }
        }
    };
    tokio::select! {
        ended = pages => ended,
        signal = signal::shutdown() => signal.map(|_| ExitCode::SUCCESS).map_err(Into::into),
    }
}

/// The terminal's second screen, without a cursor; the first one is back when this is dropped.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Self> {
        ui::print("\x1b[?1049h\x1b[?25l").map(|()| Self)
    }

    fn draw(&self, page: &Page) -> io::Result<()> {
        // A terminal that does not know its size says 0.
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_row > 1);
        ui::print(&frame(page, size.map_or(DEFAULT_ROWS, |size| size.ws_row.into())))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = io::stdout().lock();
        let _ = out.write_all(b"\x1b[?25h\x1b[?1049l").and_then(|()| out.flush());
    }
}

/// Over the last frame, line by line, so that nothing flickers; no more lines than the screen has, each cut at its
/// edge (wrapping is off while it is drawn).
fn frame(page: &Page, rows: usize) -> String {
    let lines = page.text.lines().chain(page.notes.iter().map(String::as_str));
    let drawn: Vec<String> = lines.take(rows - 1).map(|line| format!("{line}\x1b[K\r\n")).collect();
    format!("\x1b[?7l\x1b[H{}\x1b[J\x1b[?7h", drawn.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_its_screen() {
        let page = Page { text: "a\nb\nc\n".into(), notes: vec!["note".into()] };
        assert_eq!(frame(&page, 3), "\x1b[?7l\x1b[Ha\x1b[K\r\nb\x1b[K\r\n\x1b[J\x1b[?7h");
    }
}
