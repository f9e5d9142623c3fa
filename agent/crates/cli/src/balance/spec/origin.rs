//! Values of a file, checked where they are written, so that a message has the line.

use std::ops::Range;
use std::time::Duration;

use notation::duration;
use toml::Spanned;

/// Where a specification comes from.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
}

// === impl Origin ===

impl Origin {
    /// A message about a place in the file.
    pub(super) fn at(&self, span: Option<&Range<usize>>, said: &str) -> String {
        let Self { name, text } = self;
        let Some(before) = span.and_then(|span| text.get(..span.start)) else {
            return format!("{name}: {said}");
        };
        format!("{name}:{}: {said}", before.matches('\n').count() + 1)
    }

    /// A value that is checked.
    pub(super) fn read<G, T>(
        &self,
        given: &Spanned<G>,
        check: impl FnOnce(&G) -> Result<T, String>,
    ) -> Result<T, String> {
        check(given.get_ref()).map_err(|said| self.at(Some(&given.span()), &said))
    }

    /// A duration; if none is given, the usual one.
    pub(super) fn time(
        &self,
        given: Option<&Spanned<String>>,
        usual: Duration,
    ) -> Result<Duration, String> {
        let Some(given) = given else { return Ok(usual) };
        let most = Duration::from_hours(24);
        self.read(given, |text| {
            let time = duration::parse(text).filter(|time| !time.is_zero() && *time <= most);
            time.ok_or_else(|| {
                format!("{text:?} is not a duration from 1ms to 24h; write {}", duration::FORM)
            })
        })
    }

    /// A number within a range; if none is given, the usual one.
    pub(super) fn number(
        &self,
        given: Option<&Spanned<u32>>,
        usual: u32,
        range: Range<u32>,
    ) -> Result<u32, String> {
        let Some(given) = given else { return Ok(usual) };
        self.read(given, |number| {
            if range.contains(number) {
                return Ok(*number);
            }
            let last = range.end.saturating_sub(1);
            Err(format!("{number} is out of range; write a number from {} to {last}", range.start))
        })
    }
}
