//! Units of panels.

/// A Grafana unit.
#[derive(Clone, Copy)]
pub enum Unit {
    /// A number of things, from a thousand on with a prefix.
    Count,
    /// A number as it is.
    Exact,
    Seconds,
    /// A share of one, shown in percent.
    Ratio,
    /// A factor.
    Times,
    RequestsPerSecond,
    EventsPerSecond,
    /// Calls of a program in the kernel.
    RunsPerSecond,
    ConnectionsPerSecond,
    /// For rare events: "24 per minute" is read more easily than "0.4 per second".
    PerMinute,
    Bytes,
    BytesPerSecond,
    /// A time in milliseconds since the Unix epoch, shown as how long ago it is.
    Since,
}

impl Unit {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "short",
            Self::Exact => "none",
            Self::Seconds => "s",
            Self::Ratio => "percentunit",
            Self::Times => "suffix:×",
            Self::RequestsPerSecond => "reqps",
            Self::EventsPerSecond => "eps",
            Self::RunsPerSecond => "suffix:runs/s",
            Self::ConnectionsPerSecond => "suffix:conn/s",
            Self::PerMinute => "suffix:/min",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "Bps",
            Self::Since => "dateTimeFromNow",
        }
    }
}
