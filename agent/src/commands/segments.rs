//! The segments of a configuration file, for `portolan policy test`: read and judged as the agent does.

use std::path::Path;

use anyhow::bail;
use cli::{SegmentEnd, SegmentVerdicts};
use model::service::{Service, Source};
use server::convert::ToApi as _;

use crate::config::{self, Loaded};

/// Reads the file, which may have other settings too.
pub(super) fn read(path: &Path) -> anyhow::Result<SegmentVerdicts> {
    let Loaded { config, .. } = config::load(Some(path), [], &[])?;
    let policy = config.segments;
    if policy.is_empty() {
        bail!(
            "{}: no segments are declared in it; `portolan segments --help` shows how",
            path.display()
        );
    }
    Ok(Box::new(move |client: SegmentEnd<'_>, server: SegmentEnd<'_>| {
        let segment = |end: SegmentEnd<'_>| {
            // How the name was found plays no part in it.
            let service = Service {
                namespace: end.namespace.into(),
                ..Service::new(end.service, Source::Process)
            };
            policy.segment(&service, end.address)
        };
        let (client, server) = (segment(client), segment(server));
        let name = |segment| policy.name(segment).to_string();
        (policy.verdict(client, server).to_api(), name(client), name(server))
    }))
}
