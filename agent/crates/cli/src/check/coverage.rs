//! Coverage: what the agent does not observe, what it dropped and what it cannot name; and what it
//! reports about itself.

use api_types::{Finding, NameSourceState, Severity, code};

use super::answers::Answers;
use super::limits::{DROPPED_SHARE, FEW, NAMED_SHARE};
use super::pairs::Pair;
use super::report::{Checks, Found};
use super::section::Section;
use crate::human;

/// Classes whose losses lose no count.
const DETAILS: [&str; 3] = ["event", "hook_run", "dns_answer"];
/// Names that are none.
const NO_NAMES: [&str; 3] = ["other", "unknown", "none"];

pub(super) fn check(answers: &Answers, pairs: &[Pair<'_>], checks: &mut Checks) {
    let status = &answers.status;
    for finding in &status.findings {
        checks.found.push(Found::new(finding.clone()));
    }
    let (on, all) = (status.hooks.iter().filter(|hook| hook.attached).count(), status.hooks.len());
    let is_missing = status.findings.iter().any(|one| one.code == code::NOT_OBSERVED);
    if !is_missing {
        checks.pass(Section::Coverage, format!("{on} of {all} hooks attached, nothing unobserved"));
    }
    let known = status.name_sources.iter().filter(|one| one.state != NameSourceState::Absent);
    let up = known.clone().filter(|one| one.state == NameSourceState::Up).count();
    let known = known.count();
    if known > 0 && up == known {
        let sources = human::counted(known as u64, "source");
        checks.pass(Section::Coverage, format!("{sources} of names up"));
    }
    dropped(answers, checks);
    memory(answers, checks);
    named(pairs, checks);
}

fn dropped(answers: &Answers, checks: &mut Checks) {
    let mut is_well = true;
    let classes = answers.status.ledger.iter().filter(|one| !DETAILS.contains(&&*one.class));
    for one in classes {
        let lost: u64 = one.lost.values().sum();
        if lost < FEW || lost as f64 <= DROPPED_SHARE * one.seen.max(1) as f64 {
            continue;
        }
        is_well = false;
        let reasons: Vec<String> = one
            .lost
            .iter()
            .map(|(reason, count)| format!("{reason} {}", human::count(*count)))
            .collect();
        let subject = format!("events of class {}", one.class);
        let title = format!(
            "{} of {} {subject} were dropped since the agent started ({})",
            human::count(lost),
            human::count(one.seen.max(lost)),
            reasons.join(", ")
        );
        let mut finding = Finding::new(code::EVENTS_DROPPED, Severity::Warning, &subject, title)
            .with("dropped", lost)
            .with("seen", one.seen);
        finding.remediation = Some(
            "`portolan status` shows classes and reasons; for no_slot raise limits.edges or limits.owners"
                .to_owned(),
        );
        checks.found.push(Found::new(finding));
    }
    if is_well {
        checks.pass(Section::Coverage, "no or few events dropped");
    }
}

fn memory(answers: &Answers, checks: &mut Checks) {
    let memory = &answers.status.memory;
    if !memory.overflow_mode {
        checks.pass(Section::Coverage, "memory of the agent suffices");
        return;
    }
    let (used, limit) =
        (memory.used_bytes.unwrap_or_default(), memory.limit_bytes.unwrap_or_default());
    let title = format!(
        "{} of {} of memory are in use: new edges are counted as other",
        human::bytes(used),
        human::bytes(limit)
    );
    let mut finding = Finding::new(code::MEMORY_SHORT, Severity::Warning, "memory", title)
        .with("used_bytes", used)
        .with("limit_bytes", limit);
    finding.remediation = Some("raise the agent's memory limit, or lower limits.edges".to_owned());
    checks.found.push(Found::new(finding));
}

/// Whether connections have a name at both ends.
fn named(pairs: &[Pair<'_>], checks: &mut Checks) {
    let is_name = |name: &str| {
        !NO_NAMES.contains(&name) && name.parse::<std::net::IpAddr>().is_err() && !is_id(name)
    };
    let connected = |pair: &Pair<'_>| pair.connects(&["ok"]);
    let all: u64 = pairs.iter().map(connected).sum();
    let has_names = |pair: &&Pair<'_>| is_name(&pair.client.name) && is_name(&pair.server.name);
    let named: u64 = pairs.iter().filter(has_names).map(connected).sum();
    if all == 0 {
        checks.skip(Section::Coverage, "names of connections", "no connects in the window");
        return;
    }
    let share = named as f64 / all as f64;
    let said = format!(
        "{} of connections have a name at both ends ({} of {})",
        human::percent(share),
        human::count(named),
        human::count(all)
    );
    if share >= NAMED_SHARE {
        checks.pass(Section::Coverage, said);
        return;
    }
    let mut finding = Finding::new(code::UNIDENTIFIED, Severity::Info, "names", said)
        .with("named", named)
        .with("connections", all);
    finding.remediation = Some(
        "register names (portolan services register), or configure rules, networks or a source of names"
            .to_owned(),
    );
    checks.found.push(Found::new(finding));
}

/// Whether a name is the short id of a container.
fn is_id(name: &str) -> bool {
    name.len() == 12 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}
