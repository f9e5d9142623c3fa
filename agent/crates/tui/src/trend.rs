//! What edges counted in the last minute, put together from many small answers: each tick asks only
//! for what is new.

use std::collections::HashMap;

use api_types::{History, Role, Series};
use cli::words;

use crate::spark::{SECONDS, Step};

/// An edge by its ends and the side that counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EdgeName {
    pub client: String,
    pub server: String,
    pub port: u16,
    pub role: Role,
}

/// The steps of edges.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trend {
    edges: HashMap<EdgeName, Vec<Step>>,
    /// The end of the last answer, in seconds since the Unix epoch.
    pub until: f64,
    /// How much of the last minute was observed.
    pub observed_seconds: f64,
}

// === impl Trend ===

impl Trend {
    /// Seconds to ask for so that nothing is missing: twice the time since the last answer, because
    /// steps are not of equal length.
    pub fn missing_seconds(&self, now: f64) -> u64 {
        let since = now - self.until;
        if self.until <= 0.0 || since < 0.0 {
            return SECONDS as u64;
        }
        (since * 2.0 + 3.0).ceil().clamp(1.0, SECONDS) as u64
    }

    /// Adds what is new, and forgets what is older than a minute.
    pub fn add(&mut self, history: &History) {
        let until = history.timestamp.seconds();
        if until < self.until {
            // Another agent, or another clock.
            *self = Self::default();
        }
        for series in &history.series {
            let Some(name) = EdgeName::of(series) else { continue };
            let steps = self.edges.entry(name).or_default();
            let known = steps.last().map_or(f64::MIN, Step::until);
            let new = series.points.iter().map(Step::from);
            // Steps do not overlap: the middle of a new one is behind the end of the last.
            steps.extend(new.filter(|step| step.since + step.seconds / 2.0 > known));
        }
        let before = until - SECONDS - 1.0;
        self.edges.retain(|_, steps| {
            steps.retain(|step| step.since > before);
            !steps.is_empty()
        });
        let gained = if self.until > 0.0 { until - self.until } else { 0.0 };
        let observed = history.window.seconds.max(self.observed_seconds + gained);
        self.observed_seconds = observed.min(SECONDS);
        self.until = until;
    }

    /// The steps of an edge.
    pub fn of(&self, name: &EdgeName) -> &[Step] {
        self.edges.get(name).map_or(&[], Vec::as_slice)
    }
}

// === impl EdgeName ===

impl EdgeName {
    fn of(series: &Series) -> Option<Self> {
        let Series { client, client_namespace, server, server_namespace, port, role, .. } = series;
        let client = client.as_ref()?;
        Some(Self {
            client: words::full_name(client_namespace.as_deref().unwrap_or_default(), client),
            server: words::full_name(server_namespace, server),
            port: (*port)?,
            role: (*role)?,
        })
    }
}

impl From<&api_types::Edge> for EdgeName {
    fn from(edge: &api_types::Edge) -> Self {
        Self {
            client: words::full_name(&edge.client_namespace, &edge.client),
            server: words::full_name(&edge.server_namespace, &edge.server),
            port: edge.port,
            role: edge.role,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::{Point, Timestamp, Window};

    fn history(until: f64, window: f64, points: &[(f64, u64)]) -> History {
        let timestamp = Timestamp::from_seconds(until);
        let point = |(since, requests): &(f64, u64)| Point {
            since: Timestamp::from_seconds(*since),
            seconds: 1.0,
            connects_ok: 0,
            connects_failed: 0,
            requests: *requests,
            unanswered: 0,
            p50_seconds: None,
            p99_seconds: None,
            resets: 0,
            aborts: 0,
            listen_overflows: 0,
            retransmits: 0,
            sent_bytes: 0,
            received_bytes: 0,
        };
        let series = Series {
            client: Some("a".to_owned()),
            client_namespace: Some(String::new()),
            server: "b".to_owned(),
            server_namespace: "shop".to_owned(),
            port: Some(80),
            role: Some(Role::Client),
            points: points.iter().map(point).collect(),
        };
        let window = Window::before(timestamp, window);
        History { timestamp, window, series: vec![series], omitted: 0 }
    }

    fn requests(trend: &Trend) -> Vec<u64> {
        let name = EdgeName {
            client: "a".to_owned(),
            server: "shop/b".to_owned(),
            port: 80,
            role: Role::Client,
        };
        trend.of(&name).iter().map(|step| step.requests).collect()
    }

    #[test]
    fn answers_that_overlap_count_each_step_once() {
        let mut trend = Trend::default();
        assert_eq!(trend.missing_seconds(1000.0), 60);
        trend.add(&history(1000.0, 40.0, &[(997.0, 1), (998.0, 2), (999.0, 3)]));
        assert_eq!(trend.missing_seconds(1001.0), 5);
        trend.add(&history(1001.0, 5.0, &[(998.000_01, 2), (999.000_01, 3), (1000.0, 4)]));
        assert_eq!(requests(&trend), [1, 2, 3, 4]);
        assert_eq!((trend.until, trend.observed_seconds), (1001.0, 41.0));
    }

    #[test]
    fn what_is_older_than_a_minute_is_forgotten_and_so_is_another_clock() {
        let mut trend = Trend::default();
        trend.add(&history(1000.0, 60.0, &[(940.0, 1), (999.0, 2)]));
        trend.add(&history(1030.0, 60.0, &[(1029.0, 3)]));
        assert_eq!(requests(&trend), [2, 3]);
        trend.add(&history(500.0, 10.0, &[(499.0, 4)]));
        assert_eq!(requests(&trend), [4]);
        assert!((trend.observed_seconds - 10.0).abs() < 1e-9);
        trend.add(&history(700.0, 60.0, &[]));
        assert_eq!(requests(&trend), Vec::<u64>::new());
    }
}
