//! Tables as kubectl prints them: columns left-aligned, three spaces apart, no lines; and figures as people read them.

use std::time::Duration;

use unicode_width::UnicodeWidthStr;

/// Stands where there is nothing to say.
pub(super) const NONE: &str = "-";
const GAP: usize = 3;

#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new<'a>(headers: impl IntoIterator<Item = &'a str>) -> Self {
        Self { rows: vec![headers.into_iter().map(str::to_owned).collect()] }
    }

    /// Adds a row. Cells may hold anything: what would move a terminal's cursor does not get there.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let shown =
            |cell: String| if cell.is_empty() { NONE.to_owned() } else { cell.replace(char::is_control, "\u{FFFD}") };
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.push_str(&" ".repeat(width - cell.width() + GAP));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// `0.4ms`, `5ms`, `5.3ms`, `250ms`, `1.20s`, `45s`: two or three digits, since the figure is within 2 %.
pub(super) fn latency(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1000.0;
    match millis {
        ..0.1 => format!("{millis:.2}ms"),
        ..9.95 => format!("{millis:.1}ms").replace(".0ms", "ms"),
        ..999.5 => format!("{millis:.0}ms"),
        ..9_995.0 => format!("{:.2}s", millis / 1000.0),
        _ => format!("{:.0}s", millis / 1000.0),
    }
}

/// `98.50%`; never rounded up to a whole that it is not.
pub(super) fn percent(share: f64) -> String {
    // A share like 0.95 lies a hair below its own hundredths.
    format!("{:.2}%", (share * 10_000.0 + 1e-6).floor() / 100.0)
}

/// `1.2rps`, as Linkerd prints it.
pub(super) fn rate(per_second: f64) -> String {
    format!("{per_second:.1}rps")
}

/// `10B/s`, `1.5kB/s`, `12.0MB/s`, in powers of 1000.
pub(super) fn byte_rate(per_second: f64) -> String {
    match per_second {
        ..999.5 => format!("{per_second:.0}B/s"),
        ..999_950.0 => format!("{:.1}kB/s", per_second / 1e3),
        ..999_950_000.0 => format!("{:.1}MB/s", per_second / 1e6),
        _ => format!("{:.1}GB/s", per_second / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["NAME", "RPS"]);
        table.row(["gürtel".to_owned(), String::new()]);
        table.row(["a\u{1b}[2Jb".to_owned(), "1".to_owned()]);
        assert_eq!(table.render(), "NAME     RPS\ngürtel   -\na\u{FFFD}[2Jb   1\n");
    }

    #[test]
    fn latencies_have_two_or_three_digits() {
        for (micros, shown) in [
            (40, "0.04ms"),
            (400, "0.4ms"),
            (5_000, "5ms"),
            (5_320, "5.3ms"),
            (49_600, "50ms"),
            (1_200_000, "1.20s"),
            (45_000_000, "45s"),
        ] {
            assert_eq!(latency(Duration::from_micros(micros)), shown);
        }
    }

    #[test]
    fn shares_and_rates_are_honest() {
        assert_eq!(
            (percent(1.0), percent(0.99999), percent(0.5)),
            ("100.00%".into(), "99.99%".into(), "50.00%".into())
        );
        assert_eq!(
            (byte_rate(10.0), byte_rate(1_500.0), byte_rate(1.2e7)),
            ("10B/s".into(), "1.5kB/s".into(), "12.0MB/s".into())
        );
    }
}
