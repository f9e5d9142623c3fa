//! Lines of a configuration file, with their reasons as comments.

use std::time::Duration;

use super::super::intent::{Intent, Setting};
use super::Rendered;

/// Collects the lines of a file in a language whose comments begin with `#`.
pub(super) struct Writer {
    text: String,
    depth: usize,
    missing: Vec<String>,
}

// === impl Writer ===

impl Writer {
    pub(super) fn new() -> Self {
        Self { text: String::new(), depth: 0, missing: Vec::new() }
    }

    /// A line at the current depth.
    pub(super) fn line(&mut self, line: impl AsRef<str>) {
        let line = line.as_ref();
        if !line.is_empty() {
            self.text.extend(std::iter::repeat_n("    ", self.depth));
            self.text.push_str(line);
        }
        self.text.push('\n');
    }

    /// Opens a block, writes it, and closes it.
    pub(super) fn block(&mut self, open: &str, close: &str, write: impl FnOnce(&mut Self)) {
        self.line(open);
        self.depth += 1;
        write(self);
        self.depth -= 1;
        if !close.is_empty() {
            self.line(close);
        }
    }

    /// Why a setting has its value, if that was computed.
    pub(super) fn why(&mut self, intent: &Intent, setting: Setting) {
        if let Some(reason) = intent.reasons.get(&setting) {
            self.line(format!("# {reason}"));
        }
    }

    /// Something in the intent that cannot be configured in this program.
    pub(super) fn missing(&mut self, what: impl Into<String>) {
        self.missing.push(what.into());
    }

    /// The file with its head.
    pub(super) fn finish(self, intent: &Intent, title: &str) -> Rendered {
        let Self { text, missing, .. } = self;
        let name = &intent.name;
        let mut head =
            format!("# Load balancer {name}: {title}, written by `portolan balance generate`.\n");
        let mut list = |title: &str, lines: &[String]| {
            if !lines.is_empty() {
                head.push_str(title);
                head.extend(lines.iter().map(|line| format!("# * {line}\n")));
            }
        };
        list("# Know that:\n", &intent.remarks);
        list("# Not in this file, because it cannot be:\n", &missing);
        Rendered { text: format!("{head}\n{text}"), missing }
    }
}

/// Seconds as Envoy and YAML have them: `1.5s`.
pub(super) fn seconds(duration: Duration) -> String {
    let text = format!("{:.3}", duration.as_secs_f64());
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn listed(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}
