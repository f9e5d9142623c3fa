//! Which series of a stored history were asked for.

use api_types::{Series, is_called};
use client::Error;

use super::raw;

/// Series without a limit.
const USUAL_SERIES: usize = 20;

/// All conditions hold.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// At either end.
    pub service: Option<String>,
    pub client: Option<String>,
    pub server: Option<String>,
    pub port: Option<u16>,
    pub limit: Option<usize>,
}

// === impl Wanted ===

impl Wanted {
    /// Those series of a stored response, the busiest first as they are stored. Those left out by the
    /// limit are counted with the ones that the file lacks.
    pub fn of(&self, body: &str) -> Result<String, Error> {
        let admitted = raw::keep(body, "series", |one: &Series| self.admits(one))?;
        raw::keep_first(&admitted, "series", self.limit.unwrap_or(USUAL_SERIES), "omitted")
    }

    fn admits(&self, series: &Series) -> bool {
        let Self { service, client, server, port, limit: _ } = self;
        let callers = series.client_namespace.as_deref().zip(series.client.as_deref());
        let is_client = |wanted: &String| callers.is_some_and(|name| is_called(name, wanted));
        let is_server =
            |wanted: &String| is_called((&series.server_namespace, &series.server), wanted);
        service.as_ref().is_none_or(|wanted| is_client(wanted) || is_server(wanted))
            && client.as_ref().is_none_or(is_client)
            && server.as_ref().is_none_or(is_server)
            && port.is_none_or(|port| series.port == Some(port))
    }
}
