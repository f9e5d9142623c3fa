//! `/api/v1/conflicts`: ports that somebody wanted and did not get.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use super::routes::{Api, Failure};
use crate::model::conflicts::Conflict;
use crate::model::words;

/// `/api/v1/conflicts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conflicts {
    /// When the snapshot was taken, seconds since the Unix epoch.
    pub taken_seconds: f64,
    /// Failed binds and listens, oldest first.
    pub conflicts: Vec<ToldConflict>,
}

/// A conflict with the words for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToldConflict {
    /// The facts.
    #[serde(flatten)]
    pub conflict: Conflict,
    /// What happened, in one sentence.
    pub sentence: String,
    /// What to do about it.
    pub mend: String,
}

/// Which conflicts are wanted; all conditions must hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConflictFilter {
    /// Last seen at this time or later, seconds since the Unix epoch.
    since: Option<f64>,
    /// For this port.
    port: Option<u16>,
}

pub(super) async fn conflicts(
    State(api): State<Api>,
    filter: Result<Query<ConflictFilter>, QueryRejection>,
) -> Result<Json<Conflicts>, Failure> {
    let Query(filter) = filter
        .map_err(|rejection| Failure::query(&rejection, "since=SECONDS-SINCE-1970, port=N"))?;
    let snapshot = api.fresh().await?;
    let admits = |conflict: &&Arc<Conflict>| {
        filter.since.is_none_or(|since| conflict.last_seconds >= since)
            && filter.port.is_none_or(|port| conflict.port == port)
    };
    let now = snapshot.taken_seconds;
    let conflicts = snapshot.conflicts.iter().filter(admits);
    let conflicts = conflicts.map(|conflict| ToldConflict::new(conflict, now)).collect();
    Ok(Json(Conflicts { taken_seconds: now, conflicts }))
}

impl ToldConflict {
    fn new(conflict: &Conflict, now: f64) -> Self {
        Self {
            sentence: words::sentence(conflict, now),
            mend: words::mend(conflict),
            conflict: conflict.clone(),
        }
    }
}
