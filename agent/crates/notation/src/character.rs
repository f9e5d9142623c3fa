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
/// invalid UTF-8.
pub fn is_printable(c: char) -> bool {
    !c.is_control() && !is_invisible(c) && c != char::REPLACEMENT_CHARACTER
}
