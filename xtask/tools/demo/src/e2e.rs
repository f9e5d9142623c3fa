//! `cargo xtask demo test` (`cargo xtask test e2e-alerts`): injects every fault into the shop, and
//! requires the right alert, and no other, at a webhook behind the real Alertmanager; and that it
//! resolves after the fault is removed.
//!
//! It prints the table of docs/network-monitoring.md.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use portolan_dashboards::{Dashboards, PanelQuery};
use portolan_kit::{summary, tree};

use crate::faults::{FAULTS, Fault};
use crate::webhook::Webhook;
use crate::{Demo, stop};

/// How many times faster than in production: windows of 5 minutes last 15 seconds.
const FASTER: u32 = 20;
/// The window of a rate.
const WINDOW: Duration = Duration::from_mins(5);
/// Alertmanager waits this long for other alerts of the same group.
const GROUP_WAIT: Duration = Duration::from_secs(30);
/// Two scrapes, an evaluation, a notification.
const SCRAPES: Duration = Duration::from_secs(4);
/// The longest look-back of an alert: a quarter of an hour, and Alertmanager's five minutes.
const LOOKS_BACK: Duration = Duration::from_mins(20);
/// How long a shop is watched for other alerts with a fault, and after its removal.
const WATCHED: Duration = Duration::from_secs(20);
/// How long the shop runs before the first fault: an objective needs a past.
const WARM_UP: Duration = Duration::from_secs(75);

/// Metrics that the shop cannot produce, so no panel can show them; live tests cover these.
const NOT_HERE: [(&str, &str); 18] = [
    ("portolan_identity_source_", "the shop runs in no containers"),
    ("portolan_port_reservation_breaches_total", "no port is reserved"),
    ("portolan_names_overflowed_total", "no table is full"),
    ("portolan_otlp_", "nothing is pushed"),
    ("portolan_dns_lookup", "the shop has addresses, no names"),
    ("portolan_events_lost_total", "nothing is lost"),
    ("portolan_held_rows", "there is memory enough"),
    ("portolan_memory_overflow", "there is memory enough"),
    ("portolan_history_steps_dropped_total", "there is memory enough"),
    ("portolan_reported_events_dropped_total", "nobody follows the events"),
    ("portolan_probes_stuck", "no lookup hangs"),
    ("portolan_probes_total", "no lookup fails"),
    ("portolan_sockets_spilled_total", "there is room in the table of sockets"),
    ("portolan_unverified_events_total", "no user makes namespaces"),
    ("portolan_tcp_aborts", "no host goes away"),
    ("portolan_tcp_dsacks_total", "hardly any segment arrives twice"),
    ("portolan_tcp_limited_seconds_total", "every program reads, and nobody sends much"),
    ("portolan_tcp_close_wait_connections", "no fault lasts for a minute"),
];

/// Breaks and heals; `only` are names of faults, all if empty.
pub fn alerts(only: &[String]) -> Result<()> {
    for name in only {
        crate::faults::find(name)?;
    }
    let webhook = Webhook::default();
    let address = webhook.listen()?;
    let mut demo = Demo::start(&format!("http://{address}/"), u64::from(FASTER), true)?;
    stop::pause(WARM_UP)?;
    let quiet = webhook.firing()?;
    if !quiet.is_empty() {
        bail!("alerts before anything is broken: {quiet:?}");
    }
    let mut panels = Panels::new()?;
    panels.ask(&demo)?;
    panels.report_quiet()?;
    println!("| fault | alert | names | fired after | at the latest | resolved after |");
    println!("|---|---|---|---|---|---|");
    let mut failed = Vec::new();
    let chosen = |fault: &&Fault| only.is_empty() || only.iter().any(|name| name == fault.name);
    for fault in FAULTS.iter().filter(chosen) {
        let Fault { name, alert, culprit, .. } = fault;
        match one(&mut demo, &webhook, fault, &mut panels) {
            Ok(took) => println!(
                "| `{name}` | {alert} | {culprit} | {:.0} s | {:.0} s | {:.0} s |",
                took.fired.as_secs_f64(),
                at_the_latest(fault)?.as_secs_f64(),
                took.resolved.as_secs_f64()
            ),
            Err(error) => {
                println!("FAILED {name}: {error:#}");
                failed.push(*name);
                if stop::is_wanted() {
                    return Err(error);
                }
                demo.execute("heal")?;
                let _ = webhook.until(at_the_end(), BTreeSet::is_empty);
            }
        }
    }
    if only.is_empty() {
        panels.report_end()?;
    }
    let tried = FAULTS.iter().filter(chosen).count();
    if !failed.is_empty() {
        summary::report(&format!("{} of {tried} faults did not raise their alert", failed.len()))?;
        bail!("no right alert for {}", failed.join(", "));
    }
    summary::report(&format!("{tried} of {tried} faults raised their alert, and no other fired"))
}

/// How long an alert took to fire, and to resolve after the fault was fixed.
struct Took {
    fired: Duration,
    resolved: Duration,
}

/// The sum of its `for`, its window, Alertmanager's wait, and two scrapes.
fn at_the_latest(fault: &Fault) -> Result<Duration> {
    let hold = Dashboards::read(tree::root())?.hold(fault.alert);
    let hold = hold.with_context(|| format!("no rule is called {}", fault.alert))?;
    Ok((hold + WINDOW + GROUP_WAIT) / FASTER + SCRAPES)
}

fn at_the_end() -> Duration {
    LOOKS_BACK / FASTER + SCRAPES * 2
}

/// One fault.
fn one(demo: &mut Demo, webhook: &Webhook, fault: &Fault, panels: &mut Panels) -> Result<Took> {
    let expected = (fault.alert.to_owned(), fault.culprit.to_owned());
    webhook.forget();
    let began = Instant::now();
    demo.execute(&format!("break {}", fault.name))?;
    webhook
        .until(at_the_latest(fault)?, |firing| firing.contains(&expected))
        .with_context(|| format!("{} for {} did not fire", fault.alert, fault.culprit))?;
    let fired = began.elapsed();
    panels.ask(demo)?;
    // Any other alert would have fired by then.
    stop::pause(WATCHED)?;
    only_expected(webhook, fault)?;
    let healed = Instant::now();
    demo.execute("heal")?;
    webhook.until(at_the_end(), BTreeSet::is_empty).context("it does not resolve")?;
    let resolved = healed.elapsed();
    // Windows forget, and the next fault begins in peace.
    stop::pause(WATCHED)?;
    only_expected(webhook, fault).context("after healing")?;
    Ok(Took { fired, resolved })
}

fn only_expected(webhook: &Webhook, fault: &Fault) -> Result<()> {
    let mut others = webhook.ever()?;
    others.retain(|(alert, _)| alert != fault.alert && !fault.also.contains(&alert.as_str()));
    if !others.is_empty() {
        bail!("not only {}: {others:?}", fault.alert);
    }
    Ok(())
}

/// The queries of panels that have had a result.
struct Panels(Vec<(PanelQuery, bool)>);

impl Panels {
    fn new() -> Result<Self> {
        let queries = Dashboards::read(tree::root())?.queries();
        Ok(Self(queries.into_iter().map(|query| (query, false)).collect()))
    }

    /// Repeats the queries without a result so far.
    fn ask(&mut self, demo: &Demo) -> Result<()> {
        for (question, answered) in self.0.iter_mut().filter(|(_, answered)| !answered) {
            *answered = !demo.watch.query(&question.expr)?.is_empty();
        }
        Ok(())
    }

    /// In a healthy shop a panel may be empty only if it explains what that means.
    fn report_quiet(&self) -> Result<()> {
        let mut shown: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
        for (question, answered) in &self.0 {
            let panel = shown.entry(&question.panel).or_default();
            panel.0 |= *answered;
            panel.1 |= question.may_be_empty || not_here(question).is_some();
        }
        let empty = |explained: bool| {
            let those = shown
                .iter()
                .filter(|(_, (answered, explains))| !answered && *explains == explained);
            those.map(|(panel, _)| *panel).collect::<Vec<_>>()
        };
        println!("{} panels; empty while all is well:", shown.len());
        for panel in empty(true) {
            println!("  {panel}");
        }
        println!();
        let silent = empty(false);
        if !silent.is_empty() {
            bail!("empty panels that do not explain why:\n  {}", silent.join("\n  "));
        }
        Ok(())
    }

    /// In the end everything has been shown that can happen here.
    fn report_end(&self) -> Result<()> {
        let mut never = Vec::new();
        println!();
        for (question, _) in self.0.iter().filter(|(_, answered)| !answered) {
            match not_here(question) {
                Some(why) => println!("not asked here ({why}): {}", question.panel),
                None => never.push(format!("{}: {}", question.panel, question.expr)),
            }
        }
        if !never.is_empty() {
            bail!("panels that were always empty:\n  {}", never.join("\n  "));
        }
        Ok(())
    }
}

/// Why a query has no result in the shop.
fn not_here(question: &PanelQuery) -> Option<&'static str> {
    let found = NOT_HERE.iter().find(|(metric, _)| question.expr.contains(metric));
    found.map(|(_, why)| *why)
}
