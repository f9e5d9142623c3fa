//! DNS lookups over UDP: how they ended, and how long they took.

use std::fmt;

use agent_common::lookup::{RESULT_NAMES, RESULTS, TYPE_NAMES};

use super::View;
use super::metric::{EDGE, Kind, Metric, Samples, edge_and};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_dns_lookups_total",
        kind: Kind::Counter,
        help: "DNS queries over UDP by type and result; the server is the resolver. A query that is sent again is another lookup; `timeout`: no response within 5 s, or before the query was sent again, or before the program closed its socket after at least 1 s. A combination that never occurred has no series.",
        labels: edge_and!("qtype", "rcode"),
        fed_by: LOOKUPS,
        render: lookups,
    },
    Metric {
        name: "portolan_dns_lookup_duration_seconds",
        kind: Kind::Histogram,
        help: "Time from a DNS query over UDP to its response, at the client's socket. Lookups without a response are not in it.",
        labels: EDGE,
        fed_by: "sock_send_length, sk_data_ready",
        render: durations,
    },
];

const LOOKUPS: &str = "sock_send_length, sk_data_ready, sendmsg4, sendmsg6, sock_release";

fn lookups(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for row in &view.rows {
        let by_type = row.counters.lookup_results.buckets.chunks(RESULTS);
        for (qtype, counts) in TYPE_NAMES.iter().zip(by_type) {
            let counts = RESULT_NAMES.iter().zip(counts).filter(|(_, count)| **count > 0);
            for (rcode, count) in counts {
                let labels = row.labels.with([("qtype", *qtype), ("rcode", *rcode)]);
                samples.integer(Some(&labels), *count)?;
            }
        }
    }
    Ok(())
}

fn durations(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    let observed = view.rows.iter().filter(|row| row.counters.lookup.count() > 0);
    for row in observed {
        samples.histogram(&row.labels, &row.counters.lookup)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use agent_common::counters::EdgeCounters;
    use agent_common::histogram::Histogram;
    use agent_common::lookup::{TIMEOUT, number};
    use agent_common::on_demand::OnDemand;
    use agent_common::queues::Queues;
    use agent_common::wire::Wire as _;
    use model::fixture::{edge, snapshot};
    use model::service::{Service, Source};
    use model::snapshot::Role;

    use crate::Format;
    use crate::tests::render;

    #[test]
    fn lookups_alone_have_no_series_of_connections() {
        let mut results = Histogram::EMPTY;
        results.buckets[number(0, 0) as usize] = 7;
        results.buckets[number(1, TIMEOUT) as usize] = 2;
        let mut counters = EdgeCounters {
            lookup_results: OnDemand::after(None, Some(&results)),
            ..EdgeCounters::ZERO
        };
        counters.lookup.observe(1500);
        let mut only = snapshot();
        let (client, server) =
            (Service::new("a", Source::Process), Service::new("192.0.2.53", Source::Address));
        let mut row = edge(client, server, 53, Role::Client, &counters);
        row.queues = Some(Queues::zeroed());
        only.edges = vec![row];
        let text = render(only, Format::Prometheus);
        let mut series: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("client=\"a\"") && !line.contains("_bucket"))
            .map(|line| line.split_once("role=").expect("labels").1)
            .collect();
        series.sort_unstable();
        assert_eq!(
            series,
            [
                "\"client\",qtype=\"A\",rcode=\"NOERROR\"} 7",
                "\"client\",qtype=\"AAAA\",rcode=\"timeout\"} 2",
                "\"client\"} 0.0015",
                "\"client\"} 1",
            ]
        );
    }
}
