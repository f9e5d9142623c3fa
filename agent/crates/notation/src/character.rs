//! The characters that are allowed in a name.

/// Whether a character shows nothing, or changes how its neighbours are shown: bidirectional
/// controls, zero-width characters, fillers, variation selectors, tags.
pub const fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Whether a character is allowed in a name: no control or invisible characters, no replacement of
/// invalid UTF-8, none that Unicode keeps out of texts (YAML refuses the last two of them).
pub fn is_printable(c: char) -> bool {
    !c.is_control() && !is_invisible(c) && !is_noncharacter(c) && c != char::REPLACEMENT_CHARACTER
}

/// "Noncharacters": a block of Arabic's, and the last two of each plane (Unicode, section 23.7).
const fn is_noncharacter(c: char) -> bool {
    matches!(c, '\u{fdd0}'..='\u{fdef}') || c as u32 & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_shown_or_never_text_is_not_printable() {
        for c in ['a', ' ', 'é', '中', '\u{fdf0}', '\u{fffc}', '😀'] {
            assert!(is_printable(c), "{c:?}");
        }
        let not = ['\0', '\n', '\u{7f}', '\u{200b}', '\u{202e}', '\u{feff}', '\u{fffd}'];
        let never_text =
            ['\u{fdd0}', '\u{fdef}', '\u{fffe}', '\u{ffff}', '\u{1fffe}', '\u{10ffff}'];
        for c in not.into_iter().chain(never_text) {
            assert!(!is_printable(c), "{c:?}");
        }
    }
}
