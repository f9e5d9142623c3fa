//! What a filter can ask for: the fields of rows, and how their values are written.

/// A variant and its word for each field.
macro_rules! fields {
    ($(#[$doc:meta])+ $name:ident { $($(#[$of:meta])+ $variant:ident $word:literal,)+ }) => {
        $(#[$doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$of])+ $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word in a filter.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// The field with this word.
            pub fn named(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|field| field.as_str() == word)
            }
        }
    };
}

fields! {
    /// A field with texts.
    TextField {
        /// The service that connects.
        Client "client",
        /// The service that is connected to.
        Server "server",
        /// A service, at whichever end.
        Service "service",
        /// Namespaces of the services.
        Namespace "ns",
        /// Which side counted.
        Role "role",
        /// Causes, as words and as texts: a part is enough.
        Why "why",
        /// `error`, `warning`, `ok` or `idle`.
        State "state",
        /// What kind of event, service or socket.
        Kind "kind",
        /// The host.
        Host "host",
    }
}

fields! {
    /// A field with a number.
    NumberField {
        /// The port.
        Port "port",
        /// Requests per second.
        Requests "req",
        /// Median request latency.
        P50 "p50",
        /// 99th percentile of request latency.
        P99 "p99",
        /// Share of connects and requests that failed.
        Errors "err",
        /// Requests without a response.
        Unanswered "unans",
        /// Connections per second.
        Connects "conn",
        /// Failed connects per second.
        Failed "fail",
        /// Share of segments that were retransmitted.
        Retransmits "retr",
        /// Median round-trip time.
        RoundTrip "rtt",
        /// Open connections.
        Active "active",
        /// How often something happened.
        Count "count",
    }
}

/// What numbers of a field are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Plain,
    Percent,
    Seconds,
}

// === impl TextField ===

impl TextField {
    pub(super) const fn example(self) -> &'static str {
        match self {
            Self::Client | Self::Server | Self::Service => "shop/cart",
            Self::Namespace => "shop",
            Self::Role => "client",
            Self::Why => "timeout",
            Self::State => "error",
            Self::Kind => "connect",
            Self::Host => "node7",
        }
    }
}

// === impl NumberField ===

impl NumberField {
    pub(super) const fn unit(self) -> Unit {
        match self {
            Self::P50 | Self::P99 | Self::RoundTrip => Unit::Seconds,
            Self::Errors | Self::Retransmits => Unit::Percent,
            _ => Unit::Plain,
        }
    }

    /// A value, for messages.
    pub(super) const fn form(self) -> &'static str {
        match (self, self.unit()) {
            (Self::Port, _) => "8080",
            (_, Unit::Plain) => "10",
            (_, Unit::Percent) => "1%",
            (_, Unit::Seconds) => "50ms",
        }
    }
}

// === impl Unit ===

impl Unit {
    pub(super) fn number(self, text: &str) -> Option<f64> {
        const SECONDS: &[(&str, f64)] =
            &[("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)];
        const PERCENT: &[(&str, f64)] = &[("%", 1.0), ("", 1.0)];
        const PLAIN: &[(&str, f64)] = &[("k", 1e3), ("M", 1e6), ("", 1.0)];
        let units = match self {
            Self::Plain => PLAIN,
            Self::Percent => PERCENT,
            Self::Seconds => SECONDS,
        };
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(digits)?;
        let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
        let number = number.parse::<f64>().ok()? * factor;
        number.is_finite().then_some(number)
    }
}
