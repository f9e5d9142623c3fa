//! Evidence in which nothing is wrong, or nothing can be said.

use super::evidence::{Case, fails, full_table, live, quantiles};
use super::{Cause, Certainty};
use crate::diagnose::evidence::{Certificate, Live, Probes};

pub(super) const CASES: &[Case] = &[
    (
        "nothing",
        |_| {},
        Cause::Healthy,
        "nothing is wrong in the last 60 s and in 20 probes",
        Certainty::High,
    ),
    (
        "a rare failure",
        |all| fails(all, "refused", 1, 1000),
        Cause::Healthy,
        "nothing is wrong",
        Certainty::High,
    ),
    (
        "a server that refused while it stopped",
        |all| fails(all, "stopping", 50, 50),
        Cause::Healthy,
        "nothing is wrong",
        Certainty::High,
    ),
    (
        "no traffic and no probe",
        |all| {
            all.live = Some(Live::default());
            all.probes = Probes { skipped: Some("--no-probe".to_owned()), ..Probes::default() };
        },
        Cause::NotEnoughData,
        "nothing can be said",
        Certainty::Low,
    ),
    (
        "a certificate that this host does not trust",
        |all| {
            let untrusted = Some("unknown issuer".to_owned());
            all.probes.tls = Some(Ok(Certificate { untrusted, ..Certificate::default() }));
        },
        Cause::Healthy,
        "nothing is wrong",
        Certainty::High,
    ),
    (
        "long polling",
        |all| {
            live(all).client = quantiles(0.002, 0.9);
            live(all).server = quantiles(0.002, 0.88);
            live(all).waits = 20;
        },
        Cause::Healthy,
        "nothing is wrong",
        Certainty::High,
    ),
    (
        "a full table, and nothing times out",
        |all| all.full_tables = vec![full_table(true)],
        Cause::Healthy,
        "nothing is wrong",
        Certainty::High,
    ),
];
