//! The terminal: lines that scroll, and under them one bar a server that is redrawn in place.
//!
//! On a terminal the bars stay at the bottom: before each line the cursor goes back up to where they begin, erases
//! them, writes the line and draws them anew, all in one write. Without a terminal, or with `--plain`, there are only
//! lines.

use std::io::{self, Write};
use std::time::Duration;

use super::story::{Story, Tone};
use super::world::{Glance, LORA_SLOTS};

/// Most columns of a line.
pub(crate) const WIDTH: usize = 100;
/// Cells of a bar.
const BAR: usize = 12;
/// In flight at which its bar is full.
const FULL: f64 = 40.0;

/// Colours, used sparingly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    Bold,
    Dim,
    Good,
    Bad,
    Name,
}

/// Where everything is written.
pub(crate) struct View {
    plain: bool,
    out: Box<dyn Write>,
    /// Lines of bars below the last line.
    drawn: usize,
    bars: Vec<String>,
}

impl View {
    pub(crate) fn new(plain: bool, out: Box<dyn Write>) -> Self {
        Self {
            plain,
            out,
            drawn: 0,
            bars: Vec::new(),
        }
    }

    /// Without colours and cursor movement.
    pub(crate) fn is_plain(&self) -> bool {
        self.plain
    }

    /// Coloured text.
    pub(crate) fn ink(&self, ink: Ink, text: &str) -> String {
        if self.plain {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Bold => "1",
            Ink::Dim => "2",
            Ink::Good => "32",
            Ink::Bad => "33",
            Ink::Name => "36",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Writes a line above the bars.
    ///
    /// # Errors
    /// When the output is gone.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        self.write(Some(text))
    }

    /// Draws the bars anew.
    ///
    /// # Errors
    /// When the output is gone.
    pub(crate) fn show(&mut self, servers: &[Glance]) -> io::Result<()> {
        self.bars = std::iter::once(String::new())
            .chain(servers.iter().map(|server| self.bar(server)))
            .collect();
        self.write(None)
    }

    /// Takes the bars away.
    ///
    /// # Errors
    /// When the output is gone.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.bars.clear();
        self.write(None)
    }

    fn write(&mut self, line: Option<&str>) -> io::Result<()> {
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A\r\x1b[J", self.drawn));
        }
        text.extend(line.map(|line| format!("{line}\n")));
        // A bar that wraps would break the count of lines, so wrapping is off while they are drawn.
        if !self.bars.is_empty() {
            text.push_str("\x1b[?7l");
            text.extend(self.bars.iter().map(|bar| format!("{bar}\n")));
            text.push_str("\x1b[?7h");
        }
        self.drawn = self.bars.len();
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// One server as a line.
    pub(crate) fn bar(&self, server: &Glance) -> String {
        let gauge = |share: f64, ink| {
            let (full, empty) = gauge(share, BAR);
            format!("{}{}", self.ink(ink, &full), self.ink(Ink::Dim, &empty))
        };
        let busy = f64::from(server.in_flight) / FULL;
        format!(
            "  {}  {} {} {:>3}  {} {} {:>3.0} %  {} {} {:>3.0} %  {} {}/{LORA_SLOTS}",
            self.ink(Ink::Name, &server.name),
            self.ink(Ink::Dim, "in flight"),
            gauge(busy, if busy > 1.0 { Ink::Bad } else { Ink::Name }),
            server.in_flight,
            self.ink(Ink::Dim, "KV"),
            gauge(
                server.kv_usage,
                if server.kv_usage > 0.9 {
                    Ink::Bad
                } else {
                    Ink::Name
                }
            ),
            server.kv_usage * 100.0,
            self.ink(Ink::Dim, "hits"),
            gauge(server.hit_ratio, Ink::Good),
            server.hit_ratio * 100.0,
            self.ink(Ink::Dim, "LoRA"),
            server.adapters,
        )
    }

    /// A story as a line, told at `now`.
    pub(crate) fn story(&self, story: &Story, now: Duration) -> String {
        let time = format!("{:.1}s", now.as_secs_f64());
        let (arrow, server) = match &story.server {
            Some(server) => ("→", self.ink(Ink::Name, &format!("{server:<8}"))),
            None => ("×", self.ink(Ink::Bad, &format!("{:<8}", "refused"))),
        };
        let ttft = story.ttft.map(millis).unwrap_or_default();
        let text = clip(&story.text, WIDTH - 45);
        let text = match story.tone {
            Tone::Good => self.ink(Ink::Good, &text),
            Tone::Plain => text,
            Tone::Bad => self.ink(Ink::Bad, &text),
        };
        format!(
            "  {} {:<16} {arrow} {server} {ttft:>7}  {text}",
            self.ink(Ink::Dim, &format!("{time:>5}")),
            story.who
        )
    }
}

/// A bar of `width` cells, filled in eighths: the full part and the rest.
fn gauge(share: f64, width: usize) -> (String, String) {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let share = if share.is_finite() {
        share.clamp(0.0, 1.0)
    } else {
        0.0
    };
    let eighths = (share * width as f64 * 8.0).round() as usize;
    let mut full = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        full.push(EIGHTHS[eighths % 8]);
    }
    let empty = "░".repeat(width - full.chars().count());
    (full, empty)
}

/// The first `width` letters.
fn clip(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// `4 ms`, `660 ms`, `1.2 s`.
pub(crate) fn millis(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms >= 999.5 {
        format!("{:.1} s", ms / 1e3)
    } else {
        format!("{ms:.0} ms")
    }
}

/// `840`, `2.9k`, `312k`, `1.2M`.
pub(crate) fn tokens(count: u64) -> String {
    let count = count as f64;
    if count < 999.5 {
        format!("{count:.0}")
    } else if count < 99_950.0 {
        format!("{:.1}k", count / 1e3)
    } else if count < 999_500.0 {
        format!("{:.0}k", count / 1e3)
    } else {
        format!("{:.1}M", count / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::Kind;
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1.0k"),
            (2949, "2.9k"),
            (99_940, "99.9k"),
            (99_960, "100k"),
            (999_600, "1.0M"),
        ];
        for (count, text) in cases {
            assert_eq!(tokens(count), text);
        }
        let cases = [
            (400, "0 ms"),
            (4_400, "4 ms"),
            (999_400, "999 ms"),
            (999_600, "1.0 s"),
            (1_250_000, "1.2 s"),
        ];
        for (micros, text) in cases {
            assert_eq!(millis(Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn gauges_keep_their_width() {
        for step in -1..=120 {
            let (full, empty) = gauge(f64::from(step) / 100.0, 10);
            assert_eq!(full.chars().count() + empty.chars().count(), 10, "{step}");
        }
        assert_eq!(gauge(0.5, 4), ("██".into(), "░░".into()));
        assert_eq!(gauge(f64::NAN, 2), (String::new(), "░░".into()));
    }

    #[test]
    fn lines_fit_and_are_plain_when_asked_for() {
        let view = View::new(true, Box::new(io::sink()));
        let glance = Glance {
            name: "server-1".into(),
            in_flight: 120,
            kv_usage: 1.0,
            hit_ratio: 1.0,
            adapters: 2,
        };
        let story = Story {
            kind: Kind::Prefix,
            tone: Tone::Good,
            who: "agents/tenant-07".into(),
            server: Some("server-2".into()),
            ttft: Some(Duration::from_millis(123)),
            text: "prefix hit 2.9k of 3.0k tokens, 14 ms instead of 166 ms, and so on for ever"
                .into(),
        };
        for line in [
            view.bar(&glance),
            view.story(&story, Duration::from_millis(12_345)),
        ] {
            assert!(
                line.chars().count() <= WIDTH,
                "{}: {line}",
                line.chars().count()
            );
            assert!(!line.contains('\x1b'));
        }
        assert!(
            View::new(false, Box::new(io::sink()))
                .bar(&glance)
                .contains('\x1b')
        );
    }
}
