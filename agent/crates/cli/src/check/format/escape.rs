//! Names that anyone may have chosen, made harmless for each format.

/// Without characters that move the cursor or end a line.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '_' } else { c }).collect()
}

/// For XML and HTML, in texts and in attributes.
pub(super) fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // No XML document may have these (XML 1.0, 2.2).
            '\u{fffe}' | '\u{ffff}' => escaped.push('_'),
            c if c.is_control() => escaped.push('_'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// For a line or a cell of Markdown.
pub(super) fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in plain(text).chars() {
        if "\\`*_[]<>|#&".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_breaks_out_of_its_place() {
        assert_eq!(plain("a\x1b[2J\nb"), "a_[2J_b");
        assert_eq!(xml("<a b='\"'>&\u{0}\u{ffff}"), "&lt;a b=&#39;&quot;&#39;&gt;&amp;__");
        assert_eq!(markdown("a|b`c`\n<x>"), "a\\|b\\`c\\`\\_\\<x\\>");
    }
}
