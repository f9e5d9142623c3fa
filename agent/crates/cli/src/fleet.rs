//! Several agents that one command asks: all at once, with a deadline, and what they said made one.
//!
//! Who does not answer in time is named, and the others are shown all the same. A row that two hosts
//! have is one: an edge counts on the client's side, a service on its own host (decision 18). What a
//! host does not know of the other end of a connection the other host says ([`addresses`]).

mod addresses;
mod edges;
mod map;
mod services;

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use api_types::{Flow, Flows, Window};
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, value_parser};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(super) use self::addresses::Book;
use super::check::host_name;
use super::target::Connection;
use super::{Class, Outcome, Output, human};

/// How long a host may take, seconds, unless `--deadline` says otherwise: as long as a request may.
const DEADLINE_SECONDS: u64 = 15;

/// The agents to connect to: one for each `--url`, or the one that a [`Connection`] names.
#[derive(Clone, Debug)]
pub struct Connections {
    all: Vec<Connection>,
    deadline: Duration,
}

/// The agents to connect to, and the output format.
#[derive(Debug, Args)]
pub(super) struct Targets {
    #[command(flatten)]
    pub agents: Connections,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// What agents said to the same question.
#[derive(Debug)]
pub(super) struct Heard<T> {
    /// By host.
    pub answers: Vec<(usize, T)>,
    /// Every host that was asked.
    pub hosts: Vec<Host>,
}

/// One answer, made of those of all hosts.
#[derive(Debug)]
pub(super) struct Reply<T> {
    pub answer: T,
    /// As JSON: what the agent sent or, of several, the same with `hosts`.
    pub json: String,
    pub hosts: Vec<Host>,
    /// What else a table says below.
    pub footer: String,
}

/// A host that was asked, and how that went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "in JSON it is the name of the host, as everywhere")]
pub(super) struct Host {
    pub host: String,
    /// Version of its agent; null if it did not say.
    pub version: Option<String>,
    /// Whether the agent is older than this command, and may lack what is shown.
    pub is_older: bool,
    /// Why nothing of it is shown; null if it answered.
    pub error: Option<String>,
}

/// An answer of which several make one.
pub(super) trait Combine: DeserializeOwned + Serialize + Send + 'static {
    /// The one, and its JSON with `hosts`.
    fn combine(
        answers: Vec<(usize, Self)>,
        book: &Book,
        hosts: &[Host],
    ) -> serde_json::Result<(Self, String)>;
}

/// What an agent said, and its version.
type Said<T> = anyhow::Result<(T, Option<String>)>;

/// What of `/api/v1/status` matters here: an agent of any version has it.
#[derive(Deserialize)]
struct Versioned {
    version: String,
}

// === impl Reply ===

impl<T> Reply<T> {
    /// The answer, and what is said beside it.
    pub(super) fn split(self) -> (T, Reply<()>) {
        let Self { answer, json, hosts, footer } = self;
        (answer, Reply { answer: (), json, hosts, footer })
    }
}

// === impl Connections ===

impl Connections {
    /// At least one.
    pub fn all(&self) -> &[Connection] {
        &self.all
    }

    /// The agent, if there is only one.
    pub(super) fn only(&self) -> Option<&Connection> {
        match &*self.all {
            [one] => Some(one),
            _ => None,
        }
    }

    /// An error if there is a snapshot in place of agents: `what` needs one that runs.
    pub(super) fn live(&self, what: &str) -> anyhow::Result<()> {
        self.all.iter().try_for_each(|one| one.live(what))
    }

    /// The answer to `path` of the agent, or of all of them made one.
    pub(super) fn read<T: Combine>(&self, path: &str) -> anyhow::Result<Reply<T>> {
        if let Some(one) = self.only() {
            let json = one.text(path)?;
            return Ok(Reply {
                answer: client::read(&json)?,
                json,
                hosts: Vec::new(),
                footer: String::new(),
            });
        }
        let path = path.to_owned();
        let heard = self.ask(move |agent| {
            let answer: T = client::read(&agent.text(&path)?)?;
            Ok((answer, flows(agent)?))
        })?;
        let Heard { answers, hosts } = heard;
        let (mut said, mut flows) = (Vec::new(), Vec::new());
        for (host, (answer, seen)) in answers {
            said.push((host, answer));
            flows.push((host, seen));
        }
        let (answer, json) =
            T::combine(said, &Book::of(&flows), &hosts).context("writing the answer")?;
        Ok(Reply { answer, json, hosts, footer: String::new() })
    }

    /// How long to wait for hosts that do not answer.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Asks all agents at once; an error if none answers before the deadline.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        look: impl Fn(&Connection) -> anyhow::Result<T> + Send + Sync + 'static,
    ) -> anyhow::Result<Heard<T>> {
        let look = Arc::new(look);
        let works = self.all.iter().cloned().map(|agent| {
            let look = Arc::clone(&look);
            move || look(&agent).map(|answer| (answer, version(&agent)))
        });
        self.heard(at_once(works, self.deadline))
    }

    fn heard<T>(&self, said: Vec<Option<Said<T>>>) -> anyhow::Result<Heard<T>> {
        let (mut answers, mut hosts, mut first) = (Vec::new(), Vec::new(), None);
        for ((at, host), said) in names(&self.all).into_iter().enumerate().zip(said) {
            let said = said.unwrap_or_else(|| {
                let seconds = self.deadline.as_secs();
                Err(client::Error::Timeout { at: host.clone(), seconds }.into())
            });
            let (version, error) = match said {
                Ok((answer, version)) => {
                    answers.push((at, answer));
                    (version, None)
                }
                Err(error) => {
                    let text = format!("{error:#}");
                    first = first.or(Some(error));
                    (None, Some(text))
                }
            };
            let is_older = version.as_deref().is_some_and(is_older);
            hosts.push(Host { host, version, is_older, error });
        }
        match first {
            Some(error) if answers.is_empty() => Err(error),
            _ => Ok(Heard { answers, hosts }),
        }
    }
}

impl Args for Connections {
    fn augment_args(command: clap::Command) -> clap::Command {
        let deadline = Arg::new("deadline")
            .long("deadline")
            .value_name("SECONDS")
            .value_parser(value_parser!(u64).range(1..=DEADLINE_SECONDS))
            .default_value("15")
            .help("With several hosts: how long to wait for those that do not answer")
            .help_heading(super::target::HEADING);
        Connection::augment_args(command).arg(deadline).mut_arg("url", |url| {
            let help = url.get_help().map(ToString::to_string).unwrap_or_default();
            url.action(ArgAction::Append).help(format!("{help}; repeat it for several hosts"))
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Connections {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut urls: Vec<String> =
            matches.get_many::<String>("url").unwrap_or_default().cloned().collect();
        // The same agent twice would count twice.
        let mut seen = std::collections::BTreeSet::new();
        urls.retain(|url| seen.insert(url.trim_end_matches('/').to_owned()));
        let one = Connection::from_arg_matches(matches)?;
        let all: Vec<_> = urls.into_iter().map(|url| one.at(url)).collect();
        let seconds = matches.get_one::<u64>("deadline").copied().unwrap_or(DEADLINE_SECONDS);
        let all = if all.is_empty() { vec![one] } else { all };
        Ok(Self { all, deadline: Duration::from_secs(seconds) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Does all of this at once, each in a thread of its own, and waits no longer than this: nothing of what
/// takes longer, which is left to end by itself.
pub fn at_once<T: Send + 'static>(
    works: impl IntoIterator<Item = impl FnOnce() -> T + Send + 'static>,
    deadline: Duration,
) -> Vec<Option<T>> {
    let began = Instant::now();
    let (tell, told) = channel();
    let mut done = Vec::new();
    for (at, work) in works.into_iter().enumerate() {
        let tell = tell.clone();
        done.push(None);
        // After the deadline nobody listens.
        std::thread::spawn(move || tell.send((at, work())));
    }
    drop(tell);
    // Until all have told, or the time is over.
    while let Ok((at, result)) = told.recv_timeout(deadline.saturating_sub(began.elapsed())) {
        if let Some(place) = done.get_mut(at) {
            *place = Some(result);
        }
    }
    done
}

/// Names for hosts: this host's own, or the host of the URL, with its port where that alone tells two
/// apart.
pub fn names(agents: &[Connection]) -> Vec<String> {
    let short = |agent: &Connection| agent.elsewhere().map_or_else(host_name, |at| host_of(&at));
    let hosts: Vec<String> = agents.iter().map(short).collect();
    let named = hosts.iter().zip(agents).map(|(host, agent)| {
        let is_shared = hosts.iter().filter(|other| *other == host).count() > 1;
        match agent.url().filter(|_| is_shared) {
            Some(url) => place_of(url).to_owned(),
            None => host.clone(),
        }
    });
    named.collect()
}

/// Host and port of a URL.
fn place_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// The host of a URL.
fn host_of(url: &str) -> String {
    let place = place_of(url);
    let host = match place.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => place.split(':').next(),
    };
    host.unwrap_or(place).to_owned()
}

/// The flows of an agent. An older one has none: what it sees of other hosts keeps the names that it
/// gives.
pub(super) fn flows(agent: &Connection) -> anyhow::Result<Vec<Flow>> {
    match agent.text("/api/v1/flows") {
        Ok(body) => Ok(client::read::<Flows>(&body)?.flows),
        Err(error) if super::class(&error) == Some(Class::Refused) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The version of an agent, if it says one.
fn version(agent: &Connection) -> Option<String> {
    let body = agent.text("/api/v1/status").ok()?;
    client::read::<Versioned>(&body).ok().map(|status| status.version)
}

/// Whether a version is below this command's.
fn is_older(version: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
    };
    numbers(version) < numbers(env!("CARGO_PKG_VERSION"))
}

/// The time that several windows cover together.
fn together(windows: impl Iterator<Item = Window>) -> Option<Window> {
    windows.reduce(|a, b| Window {
        since: a.since.min(b.since),
        until: a.until.max(b.until),
        seconds: a.seconds.max(b.seconds),
    })
}

// === impl Host ===

impl Host {
    /// One whose metrics were recorded.
    pub(super) fn recorded(host: String, version: Option<String>, error: Option<String>) -> Self {
        let is_older = version.as_deref().is_some_and(is_older);
        Self { host, version, is_older, error }
    }

    /// What is to be said of it beside the numbers, if anything is.
    fn remark(&self) -> Option<String> {
        let Self { host, version, is_older, error } = self;
        match (error, version) {
            (Some(error), _) => Some(format!("{host} is missing: {error}")),
            (None, Some(version)) if *is_older => Some(format!(
                "{host} runs version {version}, this command {}: what is new may be missing of it",
                env!("CARGO_PKG_VERSION")
            )),
            _ => None,
        }
    }
}

/// An answer as JSON: with `hosts` if several were asked.
pub(super) fn json(answer: &impl Serialize, hosts: &[Host]) -> serde_json::Result<String> {
    if hosts.is_empty() {
        return serde_json::to_string(answer);
    }
    #[derive(Serialize)]
    struct Document<'a, T> {
        #[serde(flatten)]
        answer: &'a T,
        hosts: &'a [Host],
    }
    serde_json::to_string(&Document { answer, hosts })
}

/// Lines below a table about hosts that are missing or older; how many answered if there are several.
pub(super) fn remarks(hosts: &[Host]) -> String {
    if hosts.is_empty() {
        return String::new();
    }
    let answered = hosts.iter().filter(|host| host.error.is_none()).count();
    let all = human::counted(hosts.len() as u64, "host");
    let mut text = if answered == hosts.len() { all } else { format!("{answered} of {all}") };
    text.push('\n');
    for remark in hosts.iter().filter_map(Host::remark) {
        text.push_str(&remark);
        text.push('\n');
    }
    text
}

/// The outcome of a command that found this, unless a host is missing: then what it found is not all.
pub(super) fn outcome(hosts: &[Host], found: Outcome) -> Outcome {
    if hosts.iter().any(|host| host.error.is_some()) { Outcome::Incomplete } else { found }
}

#[cfg(test)]
mod tests;
