//! Load by backend.

use api_types::{Backend, BalanceGroup, BalanceVerdict, Distribution};
use cli::fit::Column;
use cli::words;
use notation::filter::{NumberField, TextField};

use super::Of;
use crate::rows::{Fields, Item, Mark, Row, Table, number, text};

pub(super) const HELP: &[&str] = &[
    "SHARE     the backend's part of requests, or of connections where there are no requests",
    "EXPECTED  an even share, or the declared weight",
    "! the load of this server is not spread as expected; · too few samples to tell",
    "Servers with one backend are left out",
];

const COLUMNS: &[Column] = &[
    text("", 0),
    text("CLIENT", 0),
    text("SERVER", 0),
    number("PORT", 0),
    text("BACKEND", 0),
    number("SHARE", 0),
    number("EXPECTED", 0),
    number("CONNECTIONS", 4),
    number("REQUESTS", 3),
    number("FAILED", 1),
    number("UNANS", 2),
    text("VERDICT", 0),
];

pub(super) fn table<'a>(looks: &[Of<'a>]) -> Table<'a> {
    let mut rows = Vec::new();
    for Of { host, look } in looks {
        for group in look.answers.balance.groups.iter().filter(|group| group.backends.len() > 1) {
            rows.extend(group.backends.iter().map(|backend| row(*host, group, backend)));
        }
    }
    Table {
        columns: COLUMNS.to_vec(),
        rows,
        hidden: None,
        empty: "No service has more than one backend.",
    }
}

fn row<'a>(host: usize, group: &'a BalanceGroup, backend: &'a Backend) -> Row<'a> {
    let BalanceGroup { client, client_namespace, server, server_namespace, port, .. } = group;
    let by_requests = group.requests.total > 0;
    let Distribution { verdict, .. } = if by_requests { group.requests } else { group.connections };
    let share = if by_requests { backend.requests_share } else { backend.connections_share };
    let is_off =
        [group.requests.verdict, group.connections.verdict].contains(&BalanceVerdict::Unbalanced);
    let (mark, said) = match verdict {
        _ if is_off => (Mark::Warning, "unbalanced"),
        BalanceVerdict::TooFew => (Mark::Idle, "too few samples"),
        _ => (Mark::Ok, "balanced"),
    };
    let name = backend.instance.as_ref();
    let name =
        name.map_or_else(|| backend.backend.clone(), |one| format!("{} {one}", backend.backend));
    let cells = vec![
        mark.as_char().to_string(),
        words::full_name(client_namespace, client),
        words::full_name(server_namespace, server),
        port.to_string(),
        name,
        share.map_or_else(|| "-".to_owned(), words::percent),
        words::percent(backend.expected_share),
        words::count(backend.connections),
        words::count(backend.requests),
        words::count(backend.failed),
        words::count(backend.unanswered),
        said.to_owned(),
    ];
    let fields = Fields::default()
        .service(TextField::Client, client_namespace, client)
        .service(TextField::Server, server_namespace, server)
        .text(TextField::Role, group.role.as_str())
        .text(TextField::Why, said)
        .number(NumberField::Port, f64::from(*port))
        .number(NumberField::Unanswered, backend.unanswered as f64);
    let server = words::full_name(server_namespace, server);
    Row {
        mark,
        cells,
        item: Item::Backend { group, backend },
        host,
        // Backends of a group stay together.
        key: format!("{server} {port} {client_namespace}/{client} {}", backend.backend),
        weight: (0, 0),
        fields,
    }
}
