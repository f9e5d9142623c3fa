//! Reservations: which service may have a port, where that was declared, and until when.
//!
//! Time is an argument (seconds since the Unix epoch), so whether one is in force is a question,
//! not a state: one that has run out is no longer in force even before it is removed.

use std::fmt;

pub use notation::Environment;
use serde::{Deserialize, Serialize};

use super::full_name::FullName;
use super::port::Port;
use super::timestamp;

/// Reservations at most, those of the configuration included.
pub const MOST: usize = 4096;

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The configuration: cannot be changed while the agent runs.
    Config,
    /// Requested over the control socket.
    State,
}

/// One port reserved for one service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reservation {
    /// The port.
    pub port: Port,
    /// Inode of the network namespace; `None` is the host's own.
    pub netns: Option<u32>,
    /// Only on hosts of this kind.
    pub environment: Option<Environment>,
    /// The service that may bind it.
    pub service: FullName,
    /// In force before this time; `None` = until it is released.
    pub until: Option<u64>,
    /// Deny binds of others, rather than only report them.
    pub enforce: bool,
    /// Its origin.
    pub origin: Origin,
}

/// All of them, sorted; no two that could be in force at once are for the same port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservations(Vec<Reservation>);

/// Why a reservation is not made or not released.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is reserved for another service.
    #[error("{port} is reserved for {}{}; release it first (portolan ports release {port}), or choose another (portolan ports free --near {})", .0.service, until_text(.0.until), .0.port.number, port = .0.port)]
    Taken(Box<Reservation>),
    /// It is in the configuration.
    #[error("{} is reserved for {} in the configuration; change it there (ports.reservations) and restart the agent", .0.port, .0.service)]
    InConfiguration(Box<Reservation>),
    /// Nothing to release.
    #[error("{0} is not reserved; `portolan ports reservations` lists what is")]
    NotReserved(Port),
    /// Several are.
    #[error("{0} is reserved for dev and for prod; choose one with --env")]
    Ambiguous(Port),
    /// Too many.
    #[error(
        "{MOST} ports are reserved already; release some that are not needed (`portolan ports reservations` lists them)"
    )]
    Full,
    /// Over before it begins.
    #[error("{} is not in the future; it is {} now", timestamp::rfc3339(*.until), timestamp::rfc3339(*.now))]
    Over {
        /// When it would end.
        until: u64,
        /// The current time.
        now: u64,
    },
}

// === impl Origin ===

impl Origin {
    /// The name used in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::State => "state",
        }
    }
}

// === impl Reservation ===

impl Reservation {
    /// A reservation in the configuration: `5432 postgres`, and behind it any of `env=prod`,
    /// `until=2026-12-01`, `enforce`.
    pub fn from_config(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let (Some(port), Some(service)) = (words.next(), words.next()) else {
            return Err(format!(
                "\"{text}\" is not a reservation; write a port and a service, like \"5432 postgres\" or \"8125/udp statsd env=prod until=2026-12-01 enforce\""
            ));
        };
        let mut reservation = Self {
            port: port.parse()?,
            netns: None,
            environment: None,
            service: service.parse()?,
            until: None,
            enforce: false,
            origin: Origin::Config,
        };
        for word in words {
            match word.split_once('=') {
                None if word == "enforce" => reservation.enforce = true,
                Some(("env", name)) => reservation.environment = Some(name.parse()?),
                Some(("until", text)) => {
                    reservation.until = Some(timestamp::absolute(text).ok_or_else(|| {
                        format!("invalid time \"{text}\": write a time in UTC like 2026-12-01T10:00:00Z or 2026-12-01")
                    })?);
                }
                _ => {
                    return Err(format!(
                        "\"{word}\" is not understood; behind port and service come env=dev|prod, until=TIME, enforce"
                    ));
                }
            }
        }
        Ok(reservation)
    }

    /// Whether it binds anybody at `now` on a host that is for `here` (`None`: for both).
    pub fn in_force(&self, now: u64, here: Option<Environment>) -> bool {
        !self.is_over(now) && overlap(self.environment, here)
    }

    /// Whether it has run out.
    pub fn is_over(&self, now: u64) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Whether both could be in force for one port.
    fn collides(&self, other: &Self) -> bool {
        (self.port, self.netns) == (other.port, other.netns)
            && overlap(self.environment, other.environment)
    }
}

impl fmt::Display for Reservation {
    /// As [`Reservation::from_config`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.port, self.service)?;
        if let Some(environment) = self.environment {
            write!(f, " env={}", environment.as_str())?;
        }
        if let Some(until) = self.until {
            write!(f, " until={}", timestamp::rfc3339(until))?;
        }
        if self.enforce { f.write_str(" enforce") } else { Ok(()) }
    }
}

/// Nothing said means both.
fn overlap(one: Option<Environment>, other: Option<Environment>) -> bool {
    one.is_none() || other.is_none() || one == other
}

/// ` until …` for a sentence.
fn until_text(until: Option<u64>) -> String {
    until.map_or_else(String::new, |until| format!(" until {}", timestamp::rfc3339(until)))
}

// === impl Reservations ===

impl Reservations {
    /// All, sorted by port.
    pub fn iter(&self) -> impl Iterator<Item = &Reservation> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those for a port.
    pub fn of(&self, netns: Option<u32>, port: Port) -> impl Iterator<Item = &Reservation> {
        let from = self.0.partition_point(|one| one.port < port);
        let behind = self.0.get(from..).unwrap_or_default().iter();
        behind.take_while(move |one| one.port == port).filter(move |one| one.netns == netns)
    }

    /// The one that is in force for all at `now` on a host that is for `here`.
    pub fn in_force(
        &self,
        netns: Option<u32>,
        port: Port,
        now: u64,
        here: Option<Environment>,
    ) -> Option<&Reservation> {
        self.of(netns, port).find(|one| one.in_force(now, here))
    }

    /// Adds one, or changes the one that the same service has.
    pub fn reserve(&mut self, wanted: Reservation, now: u64) -> Result<(), Refused> {
        if let Some(until) = wanted.until.filter(|until| *until <= now) {
            return Err(Refused::Over { until, now });
        }
        self.expire(now);
        for other in self.0.iter().filter(|other| other.collides(&wanted)) {
            // The configuration wins at the start, and is not contradicted later.
            if other.origin == Origin::Config && wanted.origin == Origin::State {
                return Err(Refused::InConfiguration(Box::new(other.clone())));
            }
            if other.service != wanted.service || other.origin != wanted.origin {
                return Err(Refused::Taken(Box::new(other.clone())));
            }
        }
        self.0.retain(|other| !other.collides(&wanted));
        if self.0.len() >= MOST {
            return Err(Refused::Full);
        }
        let at = self.0.partition_point(|other| *other < wanted);
        self.0.insert(at, wanted);
        Ok(())
    }

    /// Removes the one for a port and returns it.
    pub fn release(
        &mut self,
        netns: Option<u32>,
        port: Port,
        environment: Option<Environment>,
        now: u64,
    ) -> Result<Reservation, Refused> {
        self.expire(now);
        let meant = |one: &Reservation| {
            (one.port, one.netns) == (port, netns)
                && (environment.is_none() || one.environment == environment)
        };
        let mut found = self.0.iter().enumerate().filter(|(_, one)| meant(one));
        let Some((at, one)) = found.next() else { return Err(Refused::NotReserved(port)) };
        if found.next().is_some() {
            return Err(Refused::Ambiguous(port));
        }
        if one.origin == Origin::Config {
            return Err(Refused::InConfiguration(Box::new(one.clone())));
        }
        Ok(self.0.remove(at))
    }

    /// Removes what has run out, except what the configuration says: that is shown as run out.
    pub fn expire(&mut self, now: u64) {
        self.0.retain(|one| one.origin == Origin::Config || !one.is_over(now));
    }

    /// Adds what the configuration says, before anything else; the first that contradicts another
    /// is returned with it.
    pub fn configure(
        &mut self,
        reservations: &[Reservation],
    ) -> Result<(), Box<(Reservation, Reservation)>> {
        for one in reservations {
            if let Some(other) = self.0.iter().find(|other| other.collides(one)) {
                return Err(Box::new((other.clone(), one.clone())));
            }
            let at = self.0.partition_point(|other| other < one);
            self.0.insert(at, one.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
