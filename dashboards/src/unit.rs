//! What the numbers of panels are.

/// What a number is, in Grafana's words.
#[derive(Clone, Copy)]
pub enum Unit {
    /// Plain.
    Count,
    Seconds,
    /// A share of one.
    Ratio,
    RequestsPerSecond,
    PerSecond,
    /// Many of them: in thousands and millions.
    FactsPerSecond,
    Bytes,
    BytesPerSecond,
}

impl Unit {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "short",
            Self::Seconds => "s",
            Self::Ratio => "percentunit",
            Self::RequestsPerSecond => "reqps",
            Self::PerSecond => "suffix:/s",
            Self::FactsPerSecond => "cps",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "Bps",
        }
    }
}
