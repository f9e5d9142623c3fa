//! What users can have made up in namespaces of their own: counted here and in no other metric, so
//! that no rule fires for it.

use std::fmt;

use super::View;
use super::metric::{Kind, Metric, Samples};
use model::unverified::ByUser;

pub(super) const METRICS: &[Metric] = &[Metric {
    name: "portolan_unverified_events_total",
    kind: Kind::Counter,
    help: "Events within network namespaces that an unprivileged user made in a user namespace, who can make them up there: connects and accepted connections (`connect`), failed binds (`bind`), violations of segments (`segment_violation`). They are in no metric of edges, listeners, port conflicts or segments, unless a service outside is the other end. User: the number of the user, or `other`.",
    labels: &["kind", "user"],
    fed_by: "inet_sock_set_state, bind4, bind6",
    render,
}];

fn render(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    let snapshot = &view.snapshot;
    let none = ByUser::default();
    let violations = snapshot.related.segments.as_ref();
    let kinds = [
        ("bind", &snapshot.unverified_conflicts),
        ("connect", &snapshot.unverified_connects),
        ("segment_violation", violations.map_or(&none, |segments| &segments.unverified)),
    ];
    for (kind, counts) in kinds {
        for (user, count) in counts.iter() {
            let user = user.map_or_else(|| "other".to_owned(), |user| user.to_string());
            samples.integer(Some(&[("kind", kind), ("user", &*user)]), count)?;
        }
    }
    Ok(())
}
