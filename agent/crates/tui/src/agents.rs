//! The agents that are watched: a thread for each asks it again and again, so that no agent, however
//! slow, delays another or a key.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api_types::{History, WindowChoice};
use cli::judgement::{self, Answers, Found, Remembered};
use cli::{Class, Connection};

use crate::trend::Trend;

/// Events of an answer.
const EVENTS: u16 = 500;

/// Series of an answer: the busiest edges.
const SERIES: u16 = 1000;

/// What an agent knows at one moment, and what is to be thought of it.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub answers: Answers,
    /// As `portolan check` judges it, worst first.
    pub found: Vec<Found>,
    pub trend: Trend,
}

/// An agent as the screen knows it.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// The name of this host, or the URL.
    pub name: String,
    /// The last answers.
    pub look: Option<Arc<Look>>,
    /// Why there are no newer ones.
    pub error: Option<String>,
    /// When it last answered or, if it never did, when it was first asked.
    pub heard: Instant,
}

/// A result of asking an agent.
#[derive(Debug)]
pub(crate) struct Heard {
    /// Which of them.
    pub host: usize,
    pub result: Result<Arc<Look>, String>,
}

/// A thread that asks one agent.
#[derive(Debug)]
pub(crate) struct Watcher {
    nudge: Sender<()>,
    window: Arc<Mutex<WindowChoice>>,
}

/// What one thread remembers between two requests.
#[derive(Debug)]
pub(crate) struct Asker {
    pub agent: Connection,
    trend: Trend,
}

// === impl Host ===

impl Host {
    /// Takes what was heard of it.
    pub fn take(&mut self, result: Result<Arc<Look>, String>, now: Instant) {
        match result {
            Ok(look) => (self.look, self.error, self.heard) = (Some(look), None, now),
            Err(error) => self.error = Some(error),
        }
    }
}

/// The hosts of these agents, none of which was asked yet.
pub(crate) fn hosts(agents: &[Connection], now: Instant) -> Vec<Host> {
    let host = |name| Host { name, look: None, error: None, heard: now };
    cli::names(agents).into_iter().map(host).collect()
}

// === impl Asker ===

impl Asker {
    pub fn new(agent: Connection) -> Self {
        Self { agent, trend: Trend::default() }
    }

    /// Asks for everything that a screen shows.
    pub fn ask(&mut self, window: WindowChoice) -> anyhow::Result<Look> {
        let answers = Answers::ask(&self.agent, window, Remembered::Latest(EVENTS))?;
        let missing = self.trend.missing_seconds(answers.edges.timestamp.seconds());
        let path = format!("/api/v1/history?window={missing}&limit={SERIES}");
        match self.agent.text(&path).and_then(|body| Ok(client::read::<History>(&body)?)) {
            Ok(history) => self.trend.add(&history),
            // An older agent has no history: the screen does without.
            Err(error) if cli::class(&error) == Some(Class::Refused) => {}
            Err(error) => return Err(error),
        }
        let found = judgement::findings(&answers);
        Ok(Look { answers, found, trend: self.trend.clone() })
    }
}

// === impl Watcher ===

impl Watcher {
    /// Starts a thread that asks an agent every so often, until nobody listens.
    pub fn start(
        host: usize,
        agent: Connection,
        window: WindowChoice,
        every: Duration,
        tell: impl Fn(Heard) -> bool + Send + 'static,
    ) -> Self {
        let (nudge, nudged) = channel();
        let window = Arc::new(Mutex::new(window));
        let wanted = Arc::clone(&window);
        std::thread::spawn(move || watch(host, agent, &wanted, every, &nudged, tell));
        Self { nudge, window }
    }

    /// Asks for another window, at once.
    pub fn choose(&self, window: WindowChoice) {
        *self.window.lock().unwrap_or_else(PoisonError::into_inner) = window;
        // A thread that has ended has told why.
        let _ = self.nudge.send(());
    }
}

fn watch(
    host: usize,
    agent: Connection,
    wanted: &Mutex<WindowChoice>,
    every: Duration,
    nudged: &Receiver<()>,
    tell: impl Fn(Heard) -> bool,
) {
    let mut asker = Asker::new(agent);
    loop {
        let begun = Instant::now();
        let window = *wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let result = asker.ask(window).map(Arc::new).map_err(|error| format!("{error:#}"));
        if !tell(Heard { host, result }) {
            return;
        }
        // An agent that takes long is not asked more often than it can answer.
        let pause = every.saturating_sub(begun.elapsed()).max(every / 4);
        if nudged.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}
