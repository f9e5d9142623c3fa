//! Samples of one agent: which of them are the window, and what a series grew by in it.

/// When an agent was scraped, seconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scraped {
    /// The sample that the window begins with.
    pub first: f64,
    pub last: f64,
}

// === impl Scraped ===

impl Scraped {
    /// From the samples of a counter that is always there. Nothing if none is after the one that the
    /// window begins with.
    pub fn of(samples: &[(f64, f64)], since: f64) -> Option<Self> {
        let before = samples.iter().rev().find(|(time, _)| *time <= since);
        let (first, _) = before.or(samples.first())?;
        let (last, _) = samples.last()?;
        (last > first).then_some(Self { first: *first, last: *last })
    }

    /// What a counter grew by. A series that begins later began at zero, one that falls began anew.
    pub fn growth(self, samples: &[(f64, f64)]) -> f64 {
        let mut value = 0.0;
        let mut grown = 0.0;
        for (time, now) in samples {
            if *time > self.first {
                grown += if *now < value { *now } else { now - value };
            }
            value = *now;
        }
        grown
    }

    /// What a gauge changed by.
    pub fn change(self, samples: &[(f64, f64)]) -> f64 {
        let first = samples.iter().rev().find(|(time, _)| *time <= self.first);
        let last = samples.last().map_or(0.0, |(_, value)| *value);
        last - first.map_or(0.0, |(_, value)| *value)
    }

    /// The value of a gauge at the last scrape; nothing if it was not there any more.
    pub fn value(self, samples: &[(f64, f64)]) -> Option<f64> {
        let (_, value) = samples.last().filter(|(time, _)| *time >= self.last)?;
        Some(*value)
    }
}
