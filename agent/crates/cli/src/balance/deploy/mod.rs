//! `portolan balance deploy` and `rollback`: a configuration is put in place, watched, and taken
//! back if it does harm.
//!
//! Write beside, validate, back up, swap, reload, watch; see [`place`] for what a crash leaves.

mod log;
mod place;
mod process;
mod reload;
mod runtime;
mod validate;
mod watch;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use notation::duration;

use self::log::Log;
use self::place::Place;
use self::reload::Reload;
use self::validate::Checker;
use self::watch::Bounds;
use super::counts::{Counter, Counts};
use super::generate;
use super::intent::{Balancer, Intent};
use super::render;
use super::source::Source;
use crate::target::Target;
use crate::{Outcome, Output, Usage, print};

const EXAMPLES: &str = "\
Examples:
  portolan balance deploy --spec balance.toml --for nginx --to /etc/nginx/conf.d/api.conf --dry-run
  portolan balance deploy --spec balance.toml --for nginx --to /etc/nginx/conf.d/api.conf
  portolan balance deploy --spec balance.toml --for haproxy --to /etc/haproxy/haproxy.cfg --whole --runtime-socket /run/haproxy.sock
  portolan balance deploy --spec balance.toml --for traefik --to /etc/traefik/dynamic/api.yaml
  portolan balance rollback --for nginx --to /etc/nginx/conf.d/api.conf

The configuration is written beside the file, judged by the balancer itself (nginx -t, haproxy -c,
envoy --mode validate, caddy validate; a second Traefik), swapped in by a rename, and loaded. A
signal counts as a reload only if new workers start. Then the agent's counts are watched: if
connects or requests fail, requests take longer, or shares are off, the version before is put back
and loaded, and the exit code is 1. A part of an nginx or Caddy configuration is judged in its place,
in a private mount namespace, which needs root.

The agent reads no payload: an answer 502 or 503 that the balancer gives by itself is a response like
any other. What it sees are the failed connects and requests behind it.";

/// Between two looks at the agent's counts.
const PAUSE: Duration = Duration::from_millis(500);
/// Old workers end their requests within this time; shares are of the time after it.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct DeployArgs {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    at: At,
    /// A complete configuration instead of a part to include (nginx, haproxy, caddy).
    #[arg(long)]
    whole: bool,
    /// Deploy this text, generated and then edited; backends and shares are still those of the
    /// service or the file of --spec.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Set weights at this socket of HAProxy's runtime API, without a reload, if nothing else changes.
    #[arg(long, value_name = "PATH")]
    runtime_socket: Option<PathBuf>,
    /// Name of the balancer in `portolan edges` [default: nginx, haproxy, …].
    #[arg(long = "as", value_name = "NAME")]
    named: Option<String>,
    /// How long to watch before the deployment is confirmed.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = window)]
    window: Duration,
    /// Roll back if more connects or requests fail.
    #[arg(long, value_name = "PERCENT", default_value = "1%", value_parser = percent)]
    max_failures: f64,
    /// Roll back if requests take this many times as long as in the minute before, on average.
    #[arg(long, value_name = "FACTOR", default_value = "3", value_parser = factor)]
    max_latency: f64,
    /// Roll back if the share of a backend is off by more percentage points.
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent)]
    max_deviation: f64,
    /// Do not watch: needs no agent, and never rolls back after the reload.
    #[arg(long)]
    no_watch: bool,
    /// Validate, and show what would change; change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    target: Target,
}

/// Which file of which balancer.
#[derive(Debug, Args)]
struct At {
    /// The program that reads the file.
    #[arg(long = "for", value_name = "BALANCER", value_enum)]
    balancer: Balancer,
    /// The file to replace; created if it is not there.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// The file that includes it (nginx [default: /etc/nginx/nginx.conf], caddy), or files that are
    /// read before it (haproxy, may be repeated).
    #[arg(long, value_name = "FILE", value_parser = absolute)]
    main: Vec<PathBuf>,
    /// The balancer's program, to validate with [default: its name, from PATH].
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// How to reload: signal:PIDFILE, systemd:UNIT, admin:HOST:PORT (Caddy), command:COMMAND or none
    /// [default: nginx signal:/run/nginx.pid, haproxy signal:/run/haproxy.pid, caddy
    /// admin:127.0.0.1:2019, traefik none]
    #[arg(long, value_name = "HOW")]
    reload: Option<Reload>,
}

#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &DeployArgs) -> anyhow::Result<Outcome> {
    let DeployArgs { source, at, whole, file, target, dry_run, .. } = arguments;
    target.connection.live("balance deploy")?;
    let intent = source.intent(&target.connection)?;
    let rendered = render::render(&intent, at.balancer, *whole).map_err(Usage)?;
    let text = if let Some(file) = file {
        generate::present(file)?.with_context(|| format!("there is no file {}", file.display()))?
    } else {
        generate::tell(&rendered);
        rendered.text
    };
    let reload = at.reload()?;
    let mut log = Log::new(target.output);
    let place = Place::open(&at.to)?;
    let present = generate::present(&place.file)?;
    if place.is_unconfirmed() {
        log.say("an earlier deployment was interrupted: the backup from before it stays the version to return to")?;
    } else if present.as_deref() == Some(&text) {
        log.say(format!("{} is as it should be", place.file.display()))?;
        return log.end("unchanged", None);
    }
    place.write_candidate(&text)?;
    match at.checker().check(place.candidate(), &place.file, &intent) {
        Ok(how) => log.say(format!("valid: {how}"))?,
        Err(why) => {
            place.discard()?;
            return Err(why);
        }
    }
    // What runs after an interrupted deployment is not known: then only a reload will do.
    let running = if place.is_unconfirmed() { None } else { present.clone() };
    let old = present.unwrap_or_default();
    if *dry_run {
        place.discard()?;
        if target.output == Output::Text {
            print(&generate::difference(&old, &text, &place.file))?;
        }
        return log.end("valid", None);
    }
    let attempt = Attempt { arguments, intent: &intent, place: &place, reload: &reload };
    if let Err(why) = attempt.prepare() {
        place.discard()?;
        return Err(why);
    }
    attempt.run(running.as_deref(), &text, log)
}

pub(super) fn roll_back(arguments: &RollbackArgs) -> anyhow::Result<Outcome> {
    let RollbackArgs { at, target } = arguments;
    target.connection.live("balance rollback")?;
    let reload = at.reload()?;
    let mut log = Log::new(target.output);
    let place = Place::open(&at.to)?;
    // Before anything is touched: is there a version to return to, and can it be loaded?
    place.backed_up()?;
    reload.check(at.balancer)?;
    place.restore()?;
    log.say(format!("restored {}", place.file.display()))?;
    let did = reload.run(at.balancer, &at.program(), at.read_from(&place.file));
    log.say(format!("reloaded: {}", did.context("the file is restored, but not loaded")?))?;
    place.confirm()?;
    log.end("rolled_back", None)
}

/// A deployment whose configuration is valid.
struct Attempt<'a> {
    arguments: &'a DeployArgs,
    intent: &'a Intent,
    place: &'a Place,
    reload: &'a Reload,
}

// === impl Attempt ===

impl Attempt<'_> {
    /// What can be found out before anything changes.
    fn prepare(&self) -> anyhow::Result<()> {
        self.reload.check(self.arguments.at.balancer)?;
        if !self.arguments.no_watch {
            self.counter()
                .read()
                .context("without an agent nothing can be watched (--no-watch)")?;
        }
        Ok(())
    }

    fn run(&self, old: Option<&str>, new: &str, mut log: Log) -> anyhow::Result<Outcome> {
        let Self { place, arguments, .. } = self;
        let watched = if arguments.no_watch {
            None
        } else {
            let counter = self.counter();
            let before = counter.front("60s")?.mean_seconds(watch::REQUESTS);
            Some((counter, before))
        };
        place.back_up()?;
        log.say(match place.backed_up()? {
            Some(_) => format!("backed up: {}", place.backup().display()),
            None => "there was no file before".to_owned(),
        })?;
        // Read as late as possible: what failed before is not this deployment's.
        let base = watched.as_ref().map(|(counter, _)| counter.read()).transpose()?;
        place.swap()?;
        log.say(format!("swapped: {}", place.file.display()))?;
        match self.load(old, new) {
            Ok(did) => log.say(format!("reloaded: {did}"))?,
            Err(why) => return self.take_back(&format!("{why:#}"), log),
        }
        if let (Some((counter, before)), Some(base)) = (watched, base) {
            log.say(format!("watching for {}", duration::text(arguments.window)))?;
            match self.watch(&counter, &base, before).with_context(|| {
                format!(
                    "{} is the new version, but unconfirmed; deploy again, or `portolan balance rollback`",
                    place.file.display()
                )
            })? {
                Ok(seen) => log.say(seen)?,
                Err(why) => return self.take_back(&why, log),
            }
        }
        place.confirm()?;
        log.end("deployed", None)
    }

    /// Makes the balancer take the file: by new weights alone where that suffices.
    fn load(&self, old: Option<&str>, new: &str) -> anyhow::Result<String> {
        let DeployArgs { at, runtime_socket, .. } = self.arguments;
        if let (Some(socket), Balancer::Haproxy) = (runtime_socket, at.balancer)
            && let Some(weights) = old.and_then(|old| runtime::weights_only(old, new))
        {
            return runtime::set(socket, &weights);
        }
        self.reload()
    }

    fn reload(&self) -> anyhow::Result<String> {
        let at = &self.arguments.at;
        self.reload.run(at.balancer, &at.program(), at.read_from(&self.place.file))
    }

    /// The agent's counts until the window ends: what was seen, or why it is to be rolled back.
    fn watch(
        &self,
        counter: &Counter<'_>,
        base: &Counts,
        before: Option<f64>,
    ) -> anyhow::Result<Result<String, String>> {
        let DeployArgs { window, max_failures, max_latency, max_deviation, .. } = self.arguments;
        let bounds =
            Bounds { failures: *max_failures, latency: *max_latency, share: *max_deviation };
        let began = Instant::now();
        let mut settled: Option<Counts> = None;
        loop {
            let left = window.saturating_sub(began.elapsed());
            thread::sleep(PAUSE.min(left));
            let now = counter.read()?;
            let counts = now.since(base);
            if let Some(why) = watch::failing(&counts, bounds) {
                return Ok(Err(why));
            }
            if began.elapsed() >= *window {
                let since = now.since(settled.as_ref().unwrap_or(base));
                return Ok(match watch::off(&counts, &since, before, self.intent, bounds) {
                    Some(why) => Err(why),
                    None => Ok(watch::summary(&counts, &since, before, self.intent)),
                });
            }
            if settled.is_none() && began.elapsed() >= SETTLE.min(*window / 4) {
                settled = Some(now);
            }
        }
    }

    /// Puts the version before back, and says why.
    fn take_back(&self, why: &str, mut log: Log) -> anyhow::Result<Outcome> {
        log.say(format!("bad: {why}"))?;
        self.place.restore()?;
        log.say(format!("restored: {}", self.place.file.display()))?;
        match self.reload() {
            Ok(did) => log.say(format!("reloaded: {did}"))?,
            Err(error) => {
                let said =
                    format!("{why}; the version before is restored, but not loaded: {error:#}");
                return log.end("rolled_back_not_loaded", Some(said));
            }
        }
        self.place.confirm()?;
        log.end("rolled_back", Some(why.to_owned()))
    }

    fn counter(&self) -> Counter<'_> {
        let DeployArgs { at, named, target, .. } = self.arguments;
        let balancer = named.as_deref().unwrap_or(at.balancer.program());
        Counter { agent: &target.connection, balancer, intent: self.intent }
    }
}

// === impl At ===

impl At {
    fn program(&self) -> PathBuf {
        self.program.clone().unwrap_or_else(|| self.balancer.program().into())
    }

    /// The file that the balancer reads first.
    fn read_from<'a>(&'a self, file: &'a Path) -> &'a Path {
        self.main.first().map_or(file, PathBuf::as_path)
    }

    fn reload(&self) -> anyhow::Result<Reload> {
        match self.reload.clone().or_else(|| Reload::usual(self.balancer)) {
            Some(reload) => Ok(reload),
            None => Err(Usage(
                "Envoy reads its bootstrap file once; name what restarts it: --reload command:COMMAND or systemd:UNIT, or none".to_owned(),
            )
            .into()),
        }
    }

    fn checker(&self) -> Checker<'_> {
        Checker { balancer: self.balancer, program: self.program(), main: &self.main }
    }
}

/// A file by its whole path: nginx looks for a relative one below a prefix of its own.
fn absolute(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|error| error.to_string())
}

/// How long to watch.
fn window(text: &str) -> Result<Duration, String> {
    let range = Duration::from_secs(1)..=Duration::from_hours(1);
    let window = duration::parse(text).filter(|window| range.contains(window));
    window.ok_or_else(|| "write a duration from 1s to 1h".to_owned())
}

/// A share: `1%`.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>().ok();
    let number = number.filter(|number| (0.0..=100.0).contains(number));
    number.map(|number| number / 100.0).ok_or_else(|| "write a percentage like 0.5%".to_owned())
}

fn factor(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (1.0..=1000.0).contains(number));
    number.ok_or_else(|| "write a number from 1 to 1000, like 3 or 1.5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_checked() {
        assert_eq!((percent("1%"), percent("0.5"), factor("1.5")), (Ok(0.01), Ok(0.005), Ok(1.5)));
        for text in ["", "x", "-1%", "101%", "NaN"] {
            assert!(percent(text).is_err(), "{text}");
        }
        for text in ["", "0.5", "inf", "NaN"] {
            assert!(factor(text).is_err(), "{text}");
        }
        assert_eq!(window("5s"), Ok(Duration::from_secs(5)));
        assert!(window("0s").is_err() && window("5").is_err() && window("2h").is_err());
    }
}
