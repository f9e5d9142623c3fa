//! What waits in connections, by row: unread and unacknowledged data, and connections that only the
//! peer has closed. Gauges: the socket iteration finds them anew for each collection, so nothing of
//! them is remembered, and a row whose edge got another name has them under that.

use agent_common::queues::Queues;
use hashbrown::HashMap;

use super::snapshot::{EdgeLabels, EdgeView, Role};

/// Enters into each row what waits in its connections: the sum over `found`, edges in which
/// anything waits. An edge whose row is not shown yet waits for that.
pub fn enter<'a>(
    rows: &mut [EdgeView],
    found: impl IntoIterator<Item = (&'a EdgeLabels, &'a Queues)>,
) {
    let mut sums: HashMap<_, Queues> = HashMap::new();
    for (labels, queues) in found {
        sums.entry(labels.names()).or_default().merge(queues);
    }
    for EdgeView { labels, queues, .. } in rows {
        let has_connections = labels.role != Role::Listener;
        *queues = has_connections.then(|| {
            if sums.is_empty() { None } else { sums.get(&labels.names()).copied() }
                .unwrap_or(Queues::NONE)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{Service, Source};
    use std::sync::Arc;

    fn row(server: &str, role: Role) -> EdgeView {
        let names = |name| Service::new(name, Source::Process);
        let labels = Arc::new(EdgeLabels::new(names("web"), names(server), 80, role));
        EdgeView { labels, counters: Arc::default(), queues: None }
    }

    #[test]
    fn edges_with_the_names_of_a_row_add_up_and_a_listener_has_no_connections() {
        let mut rows = [
            row("db", Role::Client),
            row("db", Role::Server),
            row("db", Role::Listener),
            row("api", Role::Client),
        ];
        let queues = |n| Queues {
            receive_bytes: n,
            send_bytes: 2 * n,
            close_wait: 3 * n,
            open: 4 * n,
            connecting: 5 * n,
        };
        let db = Arc::clone(&rows[0].labels);
        // Found in another way, which makes no other row.
        let mut surer = EdgeLabels::clone(&db);
        surer.server.source = Source::Container;
        let unknown = row("not shown yet", Role::Client).labels;
        let found = [(&*db, &queues(1)), (&surer, &queues(10)), (&*unknown, &queues(100))];
        enter(&mut rows, found);
        let entered = rows.each_ref().map(|row| row.queues);
        let none = Some(Queues::NONE);
        assert_eq!(entered, [Some(queues(11)), none, None, none]);
        // Nothing of it is remembered.
        enter(&mut rows, []);
        assert_eq!(rows[0].queues, none);
    }
}
