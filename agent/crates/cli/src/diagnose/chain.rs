//! Which pairs to diagnose: the worst one, those of a service, every one with a fault, or the one on
//! the way of a request that explains the others.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::bail;

use super::DiagnoseArgs;
use super::evidence::{Hop, Name, Pair};
use super::examine::Examiner;
use super::live::Answers;
use super::place;
use super::ports;
use super::report::{Findings, Report};
use super::verdict::{Verdict, judge};
use super::words::Wanted;
use crate::known;

/// How far a request is followed: from a gateway to its upstreams, their databases, and one more.
const DEPTH: usize = 3;
/// How many edges `--all` shows.
const MOST: usize = 20;

/// Diagnoses what the command line names.
pub(super) fn findings(
    arguments: &DiagnoseArgs,
    wanted: &Wanted,
    answers: &Answers,
    examiner: &Examiner<'_>,
) -> anyhow::Result<Findings> {
    let DiagnoseArgs { gateway, database, all, .. } = arguments;
    let pairs = answers.pairs();
    if let Some(name) = gateway {
        let service = service(name, &pairs, answers)?;
        return Ok(along(answers, examiner, &service, true));
    }
    if let Some(name) = database {
        let service = service(name, &pairs, answers)?;
        return Ok(along(answers, examiner, &service, false));
    }
    if *all {
        let failed_binds = failed_binds(answers, None);
        return Ok(Findings { failed_binds, ..every(examiner, &pairs) });
    }
    let mut ranked: Vec<Pair> = pairs.iter().filter(|pair| wanted.admits(pair)).cloned().collect();
    rank(examiner, &mut ranked);
    let mut findings = Findings::default();
    match wanted {
        Wanted::Worst => {
            findings.failed_binds = failed_binds(answers, None);
            let Some(worst) = ranked.first() else {
                findings.notes.push("No connections between services in the window.".to_owned());
                return Ok(findings);
            };
            if pairs.len() > 1 {
                findings.notes.push(format!("The worst of {} edges:", pairs.len()));
            }
            let worst = root(&pairs, worst, |pair| judge(&examiner.counted(pair)));
            let report = report(examiner, answers, worst, None);
            // A failed bind is worse than an edge without a fault.
            if findings.failed_binds.is_empty() || report.verdict.cause.is_fault() {
                findings.reports.push(report);
            } else {
                findings.notes = vec![format!(
                    "Nothing is wrong with the edges (the busiest of {}: {worst}), but binds fail:",
                    pairs.len()
                )];
            }
        }
        Wanted::Both(name) => {
            let service = service(name, &pairs, answers)?;
            findings.failed_binds = failed_binds(answers, Some(&service));
            let as_server = ranked.iter().find(|pair| pair.server == service);
            let as_client = ranked.iter().find(|pair| pair.client.as_ref() == Some(&service));
            findings.reports.extend(
                as_server
                    .into_iter()
                    .chain(as_client)
                    .map(|pair| report(examiner, answers, pair, None)),
            );
            if findings.reports.is_empty() {
                findings.reports.extend(
                    quiet(answers, None, &service)
                        .map(|pair| report(examiner, answers, &pair, None)),
                );
            }
            if findings.reports.is_empty() && findings.failed_binds.is_empty() {
                findings.notes.push(format!("{service} had no connections in the window."));
            }
        }
        Wanted::Server(_) | Wanted::Between(..) => {
            if let Some(worst) = ranked.first() {
                if ranked.len() > 1 {
                    findings
                        .notes
                        .push(format!("The worst of {} edges that this means:", ranked.len()));
                }
                findings.reports.push(report(examiner, answers, worst, None));
            } else {
                let (pair, name) = unseen(wanted, &pairs, answers)?;
                findings.reports.push(report(examiner, answers, &pair, name));
            }
        }
    }
    Ok(findings)
}

/// A pair without traffic: services that the agent knows, or a server by its host name.
fn unseen(
    wanted: &Wanted,
    pairs: &[Pair],
    answers: &Answers,
) -> anyhow::Result<(Pair, Option<String>)> {
    let Some((client, server, port)) = wanted.endpoint() else {
        bail!("nothing to diagnose");
    };
    let client = client.map(|name| service(name, pairs, answers)).transpose()?;
    match (service(server, pairs, answers), port) {
        (Ok(server), Some(port)) => Ok((Pair { client, server, port }, None)),
        (Ok(server), None) => match quiet(answers, client, &server) {
            Some(pair) => Ok((pair, None)),
            None => Err(crate::Usage(format!(
                "{server} listens on no port of this host, or on several: write {server}:PORT"
            ))
            .into()),
        },
        // Not a service that the agent knows: a host.
        (Err(_), Some(port)) => {
            Ok((Pair { client, server: Name::new("", server), port }, Some(server.to_owned())))
        }
        (Err(error), None) => Err(error),
    }
}

/// The one port of a server, if it listens on a single one.
fn quiet(answers: &Answers, client: Option<Name>, server: &Name) -> Option<Pair> {
    let mut ports: Vec<u16> =
        place::listeners(&answers.ports, server, None).iter().map(|port| port.port).collect();
    ports.sort_unstable();
    ports.dedup();
    match ports.as_slice() {
        [port] => Some(Pair { client, server: server.clone(), port: *port }),
        _ => None,
    }
}

/// The service of this name.
fn service(name: &str, pairs: &[Pair], answers: &Answers) -> anyhow::Result<Name> {
    let ends = pairs.iter().flat_map(|pair| pair.client.iter().chain([&pair.server]));
    let holders = answers.ports.ports.iter().map(|port| &port.holder.service);
    let holders = holders.map(|service| Name::new(&service.namespace, &service.name));
    let claimants = answers.conflicts.conflicts.iter().map(|one| &one.claimant.service);
    let claimants = claimants.map(|service| Name::new(&service.namespace, &service.name));
    let all: BTreeSet<Name> = ends.cloned().chain(holders).chain(claimants).collect();
    if let Some(found) = all.iter().find(|one| one.is_called(name)) {
        return Ok(found.clone());
    }
    let known: Vec<String> =
        all.iter().map(|one| crate::human::full_name(&one.namespace, &one.name)).collect();
    Err(crate::Usage(known::message(name, &known)).into())
}

/// Binds that failed in the window, of one service or of all.
fn failed_binds(answers: &Answers, service: Option<&Name>) -> Vec<ports::Fault> {
    ports::failed_binds(&answers.conflicts, answers.asked_seconds, |conflict| {
        let claimant = &conflict.claimant.service;
        service.is_none_or(|service| {
            (&service.namespace, &service.name) == (&claimant.namespace, &claimant.name)
        })
    })
}

/// The worst first: by the cause, then by how much fails.
fn rank(examiner: &Examiner<'_>, pairs: &mut [Pair]) {
    pairs.sort_by_cached_key(|pair| {
        let evidence = examiner.counted(pair);
        let cause = judge(&evidence).cause;
        let live = evidence.live.unwrap_or_default();
        let failed = live.attempts().saturating_sub(live.ok) + live.unanswered;
        let weight = failed.saturating_mul(1000) / (live.attempts() + live.requests).max(1);
        (
            !cause.is_fault(),
            cause as usize,
            std::cmp::Reverse(weight),
            std::cmp::Reverse(live.requests),
        )
    });
}

fn report(examiner: &Examiner<'_>, answers: &Answers, pair: &Pair, name: Option<String>) -> Report {
    Report::of(examiner.examine(pair, name), also(answers, pair))
}

/// Who suffers as well: other clients of the server that fail or wait, and the callers of the client,
/// of these, and so on.
fn also(answers: &Answers, pair: &Pair) -> Vec<Hop> {
    let is_pair = |edge: &Pair| edge == pair;
    let pairs = answers.pairs();
    let mut found = Vec::new();
    let mut seen: BTreeSet<Name> = [pair.server.clone()].into();
    let mut level: Vec<Name> = vec![pair.server.clone()];
    for _ in 0..=DEPTH {
        let calls = |one: &&Pair| {
            // An address is not one service: at another port, or in another namespace, is another.
            let is_service = one.server.name.parse::<IpAddr>().is_err();
            level.contains(&one.server) && (is_service || one.port == pair.port)
        };
        let callers: Vec<&Pair> = pairs.iter().filter(calls).filter(|one| !is_pair(one)).collect();
        let next: Vec<Name> =
            pairs.iter().filter(calls).filter_map(|one| one.client.clone()).collect();
        for caller in callers {
            found.extend(answers.hops(|edge| super::live::pair(edge) == *caller));
        }
        level = next.into_iter().filter(|name| seen.insert(name.clone())).collect();
    }
    found.retain(|hop| hop.is_failing() || hop.is_slow());
    found
}

/// Every edge with a fault, by what the agent has counted.
fn every(examiner: &Examiner<'_>, pairs: &[Pair]) -> Findings {
    let mut ranked = pairs.to_vec();
    rank(examiner, &mut ranked);
    let mut findings = Findings::default();
    let faulty = ranked
        .iter()
        .map(|pair| examiner.counted(pair))
        .filter(|evidence| judge(evidence).cause.is_fault());
    let faulty: Vec<_> = faulty.collect();
    let (all, bad) = (pairs.len(), faulty.len());
    findings.is_well = all > 0 && bad == 0;
    findings.is_list = true;
    findings.notes.push(match (all, bad) {
        (0, _) => "No connections between services in the window.".to_owned(),
        (_, 0) => format!(
            "Nothing is wrong with {all} edges; their probes: portolan diagnose CLIENT SERVER."
        ),
        _ if bad > MOST => format!("{bad} of {all} edges have a fault; the worst {MOST}:"),
        _ => format!("{bad} of {all} edges have a fault:"),
    });
    findings.reports =
        faulty.into_iter().take(MOST).map(|evidence| Report::of(evidence, Vec::new())).collect();
    findings
}

/// The way of a request: clients, the service, and with `down` what it calls; and the diagnosis of
/// the hop that explains the others.
fn along(answers: &Answers, examiner: &Examiner<'_>, service: &Name, down: bool) -> Findings {
    let all = answers.pairs();
    let mut pairs: Vec<Pair> = all.iter().filter(|pair| pair.server == *service).cloned().collect();
    if down {
        let mut seen: BTreeSet<Name> = BTreeSet::new();
        let mut level = vec![service.clone()];
        for _ in 0..DEPTH {
            let calls: Vec<Pair> = all
                .iter()
                .filter(|pair| pair.client.as_ref().is_some_and(|client| level.contains(client)))
                .filter(|pair| !pairs.contains(pair))
                .cloned()
                .collect();
            level = calls
                .iter()
                .map(|pair| pair.server.clone())
                .filter(|name| seen.insert(name.clone()))
                .collect();
            pairs.extend(calls);
        }
    }
    let chain: Vec<Hop> = pairs
        .iter()
        .flat_map(|pair| answers.hops(|edge| super::live::pair(edge) == *pair))
        .collect();
    let mut findings = Findings { chain, ..Findings::default() };
    let worst = culprit(examiner, &pairs, &all).or_else(|| quiet(answers, None, service));
    match worst {
        Some(worst) => findings.reports.push(report(examiner, answers, &worst, None)),
        None => findings.notes.push(format!("{service} had no connections in the window.")),
    }
    findings
}

/// The pair that explains the others: the one with the gravest cause; without any, the slowest at the
/// end of the way.
fn culprit(examiner: &Examiner<'_>, pairs: &[Pair], all: &[Pair]) -> Option<Pair> {
    let mut ranked = pairs.to_vec();
    rank(examiner, &mut ranked);
    let worst = ranked.first()?;
    let Verdict { cause, .. } = judge(&examiner.counted(worst));
    if cause.is_fault() {
        return Some(root(all, worst, |pair| judge(&examiner.counted(pair))).clone());
    }
    let slowest = |pair: &&Pair| {
        let live = examiner.counted(pair).live.unwrap_or_default();
        let p99 = live.client.p99.or(live.server.p99).unwrap_or_default();
        (p99 * 1e9) as u64
    };
    pairs.iter().max_by_key(slowest).cloned()
}

/// The pair that explains `worst`: as long as a server waits for another that has a fault too, the
/// edge to that one.
fn root<'a>(pairs: &'a [Pair], worst: &'a Pair, judged: impl Fn(&Pair) -> Verdict) -> &'a Pair {
    let mut way = vec![worst];
    let mut verdict = judged(worst);
    let mut at = worst;
    while let Some((server, port)) = verdict.waits_for.take() {
        let is_next = |pair: &&Pair| {
            pair.client.as_ref() == Some(&at.server)
                && pair.port == port
                && pair.server.to_string() == server
        };
        // Services that call each other end where they began.
        let next = pairs.iter().find(is_next).filter(|pair| !way.contains(pair));
        let Some(next) = next else { break };
        verdict = judged(next);
        if !verdict.cause.is_fault() {
            break;
        }
        way.push(next);
        at = next;
    }
    at
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::cause::Cause;
    use super::super::live::tests::answers;
    use super::super::verdict::Certainty;
    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: DiagnoseArgs,
    }

    /// What `portolan diagnose --no-probe` finds with these words.
    fn diagnose(words: &[&str]) -> anyhow::Result<Findings> {
        let words = ["diagnose", "--no-probe"].iter().chain(words);
        let Cli { arguments } = Cli::try_parse_from(words).expect("a valid command line");
        let DiagnoseArgs { client, server, .. } = &arguments;
        let wanted = Wanted::of(client.as_deref(), server.as_deref()).expect("valid");
        let answers = answers();
        findings(&arguments, &wanted, &answers, &Examiner::new(&arguments, Some(&answers)))
    }

    fn pairs(found: &Findings) -> Vec<String> {
        found.reports.iter().map(|report| report.pair.to_string()).collect()
    }

    #[test]
    fn words_and_forms_choose_the_edges() {
        let check = |words: &[&str], expected: &[&str]| {
            let found = diagnose(words).expect("findings");
            assert_eq!(pairs(&found), expected, "{words:?}");
        };
        const TO_DATABASE: &str = "prod/shop → postgres:5432";
        const FROM_OUTSIDE: &str = "internet → prod/shop:8080";
        check(&[], &[TO_DATABASE]);
        check(&["shop", "postgres"], &[TO_DATABASE]);
        check(&["prod/shop", "postgres:5432"], &[TO_DATABASE]);
        check(&["shop"], &[FROM_OUTSIDE, TO_DATABASE]);
        check(&["shop:8080"], &[FROM_OUTSIDE]);
        check(&["--database", "postgres"], &[TO_DATABASE]);
        check(&["--all"], &[TO_DATABASE, FROM_OUTSIDE]);
        // A server without clients, and one that no agent knows.
        check(&["shop", "postgres:5433"], &["prod/shop → postgres:5433"]);
        check(&["shop", "db.example:5432"], &["prod/shop → db.example:5432"]);
    }

    #[test]
    fn a_gateway_is_diagnosed_where_its_requests_fail() {
        let found = diagnose(&["--gateway", "shop"]).expect("findings");
        let chain: Vec<&str> = found.chain.iter().map(|hop| hop.client.as_str()).collect();
        assert_eq!(chain, ["internet", "prod/shop"]);
        assert_eq!(pairs(&found), ["prod/shop → postgres:5432"]);
        let also: Vec<&str> = found.reports[0].also.iter().map(|hop| hop.client.as_str()).collect();
        assert_eq!(also, ["internet"], "its clients get errors");
        let text = found.text();
        assert!(text.starts_with("Chain:\n  ✗ internet → prod/shop:8080"), "{text}");
        assert!(text.contains("\n  ✗ prod/shop → postgres:5432"), "{text}");
    }

    #[test]
    fn the_last_slow_hop_of_a_chain_explains_the_others() {
        let pair = |client: &str, server: &str| Pair {
            client: Some(Name::new("", client)),
            server: Name::new("", server),
            port: 80,
        };
        // Which service each waits for.
        let check = |waits: &[(&str, &str)], expected: &Pair| {
            let pairs = [
                pair("user", "gateway"),
                pair("gateway", "cache"),
                pair("gateway", "middle"),
                pair("middle", "database"),
                pair("database", "gateway"),
            ];
            let judged = |pair: &Pair| {
                let next = waits.iter().find(|(server, _)| *server == pair.server.name);
                let cause = match next {
                    Some(_) => Cause::SlowDependency,
                    None if pair.server.name == "cache" => Cause::Healthy,
                    None => Cause::SlowServer,
                };
                let verdict = Verdict::new(cause, String::new(), Certainty::Medium, "");
                Verdict { waits_for: next.map(|(_, next)| ((*next).to_owned(), 80)), ..verdict }
            };
            assert_eq!(root(&pairs, &pairs[0], judged), expected, "{waits:?}");
        };
        check(&[("gateway", "middle"), ("middle", "database")], &pair("middle", "database"));
        check(&[("gateway", "middle")], &pair("gateway", "middle"));
        // What it waits for has no fault of its own, or is not observed.
        check(&[("gateway", "cache")], &pair("user", "gateway"));
        check(&[("gateway", "nowhere")], &pair("user", "gateway"));
        let circle = [("gateway", "middle"), ("middle", "database"), ("database", "gateway")];
        check(&circle, &pair("database", "gateway"));
    }

    #[test]
    fn an_unknown_service_is_a_mistake_of_the_command_line() {
        for words in [&["shap"][..], &["shop", "postgers"], &["--gateway", "shap"], &["x", "y:1"]] {
            let error = diagnose(words).map(|_| ()).expect_err("unknown");
            assert_eq!(crate::class(&error), Some(client::Class::Usage), "{words:?}: {error:#}");
        }
        let error = diagnose(&["shap"]).map(|_| ()).expect_err("unknown");
        assert_eq!(error.to_string(), "no service is named shap; did you mean shop?");
    }
}
