//! `cargo xtask demo diagnose` (`cargo xtask test e2e-diagnose`): injects every fault into the
//! shop, and requires that `portolan check` and `portolan diagnose` name it, and nothing else as a
//! cause; and that both find nothing in the healthy shop.
//!
//! It prints the table of docs/proof.md. Services of other tests on this machine are left out.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use portolan_kit::summary;
use serde_json::Value;

use crate::faults::{FAULTS, Fault};
use crate::programs::SERVICES;
use crate::webhook::Webhook;
use crate::{Demo, stop, watch};

/// What the commands' numbers cover here: of one fault, not of the one before.
const WINDOW: Duration = Duration::from_secs(30);
/// How long the shop runs before the first fault: diagnose compares with what is usual.
const WARM_UP: Duration = Duration::from_secs(45);
/// How long a fault may take to be named.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long a fault lasts, until everything that follows from it shows.
const LASTS: Duration = Duration::from_secs(25);
/// Between two tries.
const GAP: Duration = Duration::from_millis(500);

/// How long each command took to name a fault, from its beginning.
struct Took {
    check: Duration,
    diagnose: Duration,
    between: Duration,
    /// The verdict in words, and how sure it is.
    verdict: String,
    certainty: String,
}

/// The commands against the running demo.
struct Commands {
    binary: PathBuf,
    url: String,
}

/// Breaks and heals; `only` are names of faults, all if empty.
pub fn diagnose(only: &[String]) -> Result<()> {
    for name in only {
        crate::faults::find(name)?;
    }
    let webhook = Webhook::default().listen()?;
    let mut demo = Demo::start(&format!("http://{webhook}/"), 1, true)?;
    sees_listeners(&demo.watch.agent)?;
    let url = format!("http://{}", demo.watch.agent);
    let commands = Commands { binary: crate::binary()?, url };
    stop::pause(WARM_UP)?;
    commands.find_nothing().context("before anything is broken")?;
    println!(
        "| fault | check | diagnose | verdict | sure | check after | diagnose after | named after |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let chosen = |fault: &&Fault| only.is_empty() || only.iter().any(|name| name == fault.name);
    let (mut failed, mut tried) = (Vec::new(), 0);
    for fault in FAULTS.iter().filter(chosen) {
        tried += 1;
        let Fault { name, code, between, cause, .. } = fault;
        let result = one(&mut demo, &commands, fault);
        let healed = demo.execute("heal");
        match result.and_then(|took| healed.map(|_| took)) {
            Ok(Took { check, diagnose, between: named, verdict, certainty }) => println!(
                "| `{name}` | {code} | `{}`: {cause} | {verdict} | {certainty} | {:.0} s | {:.0} s | {:.0} s |",
                between.join(" "),
                check.as_secs_f64(),
                diagnose.as_secs_f64(),
                named.as_secs_f64()
            ),
            Err(error) => {
                println!("FAILED {name}: {error:#}");
                failed.push(*name);
                if stop::is_wanted() {
                    return Err(error);
                }
            }
        }
        // Windows forget, and the next fault begins in peace.
        until(WINDOW + PATIENCE, || commands.find_nothing()).context("after healing")?;
    }
    if !failed.is_empty() {
        summary::report(&format!("{} of {tried} faults were not diagnosed", failed.len()))?;
        bail!("no right diagnosis of {}", failed.join(", "));
    }
    summary::report(&format!("{tried} of {tried} faults were named by check and diagnose"))
}

/// Services are named by their listeners, so these have to be observed.
fn sees_listeners(agent: &str) -> Result<()> {
    let status: Value = serde_json::from_str(&watch::get(agent, "/api/v1/status")?)?;
    let hooks = status["hooks"].as_array().context("a status without hooks")?;
    let hook = hooks.iter().find(|hook| hook["name"] == "iterate_sockets");
    let hook = hook.context("a status without iterate_sockets")?;
    let why = hook["reason"].as_str().unwrap_or("no reason is given");
    ensure!(hook["attached"] == true, "this kernel does not show what listens: {why}");
    Ok(())
}

/// One fault.
fn one(demo: &mut Demo, commands: &Commands, fault: &Fault) -> Result<Took> {
    let began = Instant::now();
    demo.execute(&format!("break {}", fault.name))?;
    let (mut check, mut diagnose, mut between) = (None, None, None);
    let mut last = String::new();
    while check.is_none() || diagnose.is_none() || between.is_none() {
        if began.elapsed() > PATIENCE {
            bail!("not named within {} s: {last}", PATIENCE.as_secs());
        }
        let mut note = |known: &mut Option<Duration>, result: Result<()>| match result {
            Ok(()) => *known = known.or(Some(began.elapsed())),
            Err(error) => last = format!("{error:#}"),
        };
        if check.is_none() {
            note(&mut check, commands.check_names(fault));
        }
        if diagnose.is_none() {
            note(&mut diagnose, commands.worst_is(fault));
        }
        if between.is_none() {
            note(&mut between, commands.verdict(fault).map(drop));
        }
        stop::pause(GAP)?;
    }
    stop::pause(LASTS.saturating_sub(began.elapsed()))?;
    // By now everything shows that follows from it.
    commands.check_names(fault).context("in the end")?;
    commands.worst_is(fault).context("in the end")?;
    let (verdict, certainty) = commands.verdict(fault).context("in the end")?;
    let took = |known: Option<Duration>| known.unwrap_or_default();
    Ok(Took {
        check: took(check),
        diagnose: took(diagnose),
        between: took(between),
        verdict,
        certainty,
    })
}

// === impl Commands ===

impl Commands {
    /// The JSON of a command.
    fn run(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).args(["-o", "json", "--url", &self.url]);
        command.args(["--window", &format!("{}s", WINDOW.as_secs())]);
        let output = command.output().context("starting portolan")?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "`portolan {}`: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }

    /// Warnings and errors of `check` about the shop that follow from nothing: code and title.
    fn roots(&self) -> Result<Vec<(String, String)>> {
        let report = self.run(&["check"])?;
        let all = report["findings"].as_array().context("no findings")?;
        let is_root = |one: &&Value| one["severity"] != "info" && one["caused_by"].is_null();
        let text = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
        let ours = all.iter().filter(is_root).filter(|one| is_ours(&text(one, "subject")));
        Ok(ours.map(|one| (text(one, "code"), text(one, "title"))).collect())
    }

    fn check_names(&self, fault: &Fault) -> Result<()> {
        let roots = self.roots()?;
        let is_it =
            |(code, title): &(String, String)| code == fault.code && title.contains(fault.says);
        ensure!(roots.iter().any(is_it), "check does not find {}: {roots:?}", fault.code);
        let others: Vec<_> = roots.iter().filter(|root| !is_it(root)).collect();
        ensure!(others.is_empty(), "check finds more causes than {}: {others:?}", fault.code);
        Ok(())
    }

    /// Whether `diagnose` alone shows the fault first, among the edges of the shop.
    fn worst_is(&self, fault: &Fault) -> Result<()> {
        let mut answer = self.run(&["diagnose"])?;
        let is_of_shop = |answer: &Value| {
            let report = &answer["reports"][0];
            report.is_null() || is_ours(report["server"]["name"].as_str().unwrap_or_default())
        };
        if !is_of_shop(&answer) {
            // Another test breaks something worse.
            answer = self.run(&["diagnose", "--all", "--no-probe"])?;
            let reports = answer["reports"].as_array_mut().context("no reports")?;
            reports.retain(|one| is_ours(one["server"]["name"].as_str().unwrap_or_default()));
        }
        let found = cause(&answer);
        // The process is looked at only by a diagnosis of one edge.
        let is_it = found == fault.cause
            || (fault.cause == "process_stopped" && found == "accept_queue_full");
        ensure!(is_it, "diagnose finds {found}: {answer:#}");
        Ok(())
    }

    /// The verdict between the two, and its certainty.
    fn verdict(&self, fault: &Fault) -> Result<(String, String)> {
        let arguments: Vec<&str> =
            std::iter::once("diagnose").chain(fault.between.iter().copied()).collect();
        let answer = self.run(&arguments)?;
        let found = cause(&answer);
        ensure!(
            found == fault.cause,
            "`portolan {}` finds {found}: {answer:#}",
            arguments.join(" ")
        );
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let verdict = &answer["reports"][0]["verdict"];
        if verdict.is_null() {
            return Ok((text(&answer["failed_binds"][0]["title"]), "high".to_owned()));
        }
        Ok((text(&verdict["text"]), text(&verdict["certainty"])))
    }

    /// Both commands find nothing in the shop.
    fn find_nothing(&self) -> Result<()> {
        let roots = self.roots()?;
        ensure!(roots.is_empty(), "check finds {roots:?}");
        let answer = self.run(&["diagnose", "--all"])?;
        let reports = answer["reports"].as_array().into_iter().flatten();
        let ours =
            reports.filter(|one| is_ours(one["server"]["name"].as_str().unwrap_or_default()));
        let verdicts: Vec<&str> = ours.filter_map(|one| one["verdict"]["text"].as_str()).collect();
        ensure!(verdicts.is_empty(), "diagnose --all finds {verdicts:?}");
        // Between services that are there without a fault, too.
        for fault in FAULTS {
            let [client, server] = fault.between else { continue };
            if ["scraper.js", "report.js"].contains(client) {
                continue;
            }
            let answer = self.run(&["diagnose", client, server])?;
            let found = cause(&answer);
            ensure!(found == "healthy", "diagnose {client} {server} finds {found}: {answer:#}");
        }
        Ok(())
    }
}

/// Tries until it succeeds.
fn until(patience: Duration, mut what: impl FnMut() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    loop {
        match what() {
            Ok(()) => return Ok(()),
            Err(error) if began.elapsed() > patience => return Err(error),
            Err(_) => stop::pause(GAP)?,
        }
    }
}

/// The cause of the first report, or that a bind fails.
fn cause(answer: &Value) -> &str {
    let of_edge = answer["reports"][0]["verdict"]["cause"].as_str();
    let of_bind = answer["failed_binds"][0]["cause"].as_str();
    of_edge
        .filter(|cause| *cause != "healthy" || of_bind.is_none())
        .or(of_bind)
        .unwrap_or("nothing")
}

/// Whether a service of the shop is in a subject.
fn is_ours(subject: &str) -> bool {
    let words = subject.split([' ', ':', '/', ',']);
    words.into_iter().any(|word| SERVICES.contains(&word))
}
