//! Prometheus' text exposition, version 0.0.4, and the reverse of its one liberty: how label values are escaped.
//!
//! The reader is also prometheus-parse, which does not undo backslash escapes and loses labels whose values hold `,`, `=` or
//! `}`; and part of a value may be an attacker's (`Host`). So these characters, `%` itself, `{`, `"`, `\` and all control
//! characters are percent-encoded (RFC 3986 form, `%2C`); ordinary names stay as they are, and Prometheus is none the wiser.

use std::fmt::{Display, Write};

/// Text being written, with the number of samples in it. Writing to memory cannot fail, so no result is looked at.
#[derive(Debug, Default)]
pub(crate) struct Text {
    out: String,
    samples: u64,
}

impl Text {
    /// Begins a family; its samples follow.
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A line. `labels` come escaped from [`Labels`], without braces.
    pub(crate) fn sample(&mut self, name: &str, labels: &Labels, value: impl Display) {
        self.suffixed(name, "", labels, value);
    }

    /// A line of `name` + `suffix`: the parts of a histogram.
    pub(crate) fn suffixed(&mut self, name: &str, suffix: &str, labels: &Labels, value: impl Display) {
        self.samples += 1;
        let _ = match labels.0.as_str() {
            "" => writeln!(self.out, "{name}{suffix} {value}"),
            labels => writeln!(self.out, "{name}{suffix}{{{labels}}} {value}"),
        };
    }

    pub(crate) fn samples(&self) -> u64 {
        self.samples
    }

    pub(crate) fn finish(self) -> String {
        self.out
    }
}

/// A label set as it stands between the braces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labels(String);

impl Labels {
    /// Adds a label. Names are our own constants; values may be anything.
    pub(crate) fn with(mut self, name: &str, value: impl AsRef<str>) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(name);
        self.0.push_str("=\"");
        escape(value.as_ref(), &mut self.0);
        self.0.push('"');
        self
    }
}

fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        if c.is_ascii_control() || matches!(c, '"' | '\\' | ',' | '=' | '{' | '}' | '%') {
            let _ = write!(out, "%{:02X}", u32::from(c));
        } else {
            out.push(c);
        }
    }
}

/// Undoes the escaping of a label value. What is not an escape stays as it is.
pub(crate) fn unescape(value: &str) -> String {
    let mut parts = value.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(u8::is_ascii);
        match code {
            Some(code) => {
                out.push(char::from(code));
                out.push_str(&part[2..]);
            }
            None => {
                out.push('%');
                out.push_str(part);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn escaping_is_undone_and_leaves_nothing_a_parser_stumbles_over(value in any::<String>()) {
            let mut escaped = String::new();
            escape(&value, &mut escaped);
            let stumbles = escaped.contains(['"', '\\', ',', '=', '{', '}', '\n', '\r']);
            prop_assert!(!stumbles);
            prop_assert_eq!(unescape(&escaped), value);
        }

        #[test]
        fn unescaping_anything_is_safe(value in ".*%.*") {
            let _ = unescape(&value);
        }
    }

    #[test]
    fn ordinary_names_are_not_touched() {
        let labels =
            Labels::default().with("target", "shop/orders:80").with("peer_id", "spiffe://local/ns/shop/sa/web");
        let mut text = Text::default();
        text.family("mesh_x_total", "counter", "What it is.");
        text.sample("mesh_x_total", &labels, 3);
        text.sample("mesh_x_total", &Labels::default(), 0.5);
        assert_eq!(text.samples(), 2);
        insta::assert_snapshot!(text.finish(), @r##"
        # HELP mesh_x_total What it is.
        # TYPE mesh_x_total counter
        mesh_x_total{target="shop/orders:80",peer_id="spiffe://local/ns/shop/sa/web"} 3
        mesh_x_total 0.5
        "##);
    }
}
