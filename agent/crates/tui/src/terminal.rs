//! The terminal: into raw mode and out of it again, whatever ends the program; keys, signals and answers
//! as one queue.

use std::io::{self, Stdout};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use cli::Connection;
use crossterm::cursor::Show;
use crossterm::event::{Event, KeyEvent, KeyEventKind};
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui_core::terminal::Terminal;
use ratatui_crossterm::CrosstermBackend;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::action::{Action, diagnosis};
use crate::agents::{Heard, Watcher};
use crate::app::App;
use crate::report;

/// The screen is drawn again after this time at the latest: what is old says how old it is.
const REDRAW: Duration = Duration::from_secs(1);

/// What happens.
enum Message {
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    Heard(Heard),
    /// The report of a diagnosis, by its title.
    Report(String, String),
    /// A signal, or the terminal is gone.
    Stop,
}

/// The terminal in raw mode; dropped, it is as it was before.
struct Raw;

/// Shows the screen until somebody quits.
pub(crate) fn run(mut app: App, agents: &[Connection], colours: bool) -> anyhow::Result<()> {
    // Otherwise the colours of cells are left out by the library that writes them.
    crossterm::style::force_color_output(colours);
    let (tell, told) = channel();
    let watchers: Vec<Watcher> = agents
        .iter()
        .enumerate()
        .map(|(host, agent)| {
            let tell = tell.clone();
            let tell = move |heard| tell.send(Message::Heard(heard)).is_ok();
            Watcher::start(host, agent.clone(), app.window, app.every, tell)
        })
        .collect();
    let raw = Raw::enter().context("preparing the terminal")?;
    let mut terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
    stop_at_signals(tell.clone())?;
    read_keys(tell.clone());
    let result = show(&mut app, &mut terminal, &told, &tell, &watchers, agents);
    drop(raw);
    result
}

fn show(
    app: &mut App,
    terminal: &mut Terminal<CrosstermBackend<Stdout>>,
    told: &Receiver<Message>,
    tell: &Sender<Message>,
    watchers: &[Watcher],
    agents: &[Connection],
) -> anyhow::Result<()> {
    loop {
        terminal
            .draw(|frame| app.draw(frame, Instant::now()))
            .context("writing to the terminal")?;
        let mut next = match told.recv_timeout(REDRAW) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        // All that is there already: keys that are held down do not queue up behind drawings.
        while let Some(message) = next {
            match message {
                Message::Stop => return Ok(()),
                Message::Resized => terminal.autoresize().context("resizing the terminal")?,
                Message::Heard(heard) => app.hear(heard, Instant::now()),
                Message::Report(title, report) => app.take_report(&title, &report),
                Message::Key(key) => match app.press(key) {
                    Action::Draw => {}
                    Action::Quit => return Ok(()),
                    Action::Window(window) => {
                        for watcher in watchers {
                            watcher.choose(window);
                        }
                    }
                    Action::Diagnose { host, client, server } => {
                        if let Some(agent) = agents.get(host) {
                            diagnose(agent.clone(), client, server, tell.clone());
                        }
                    }
                    Action::Export => app.message = Some(export(app)),
                },
            }
            next = told.try_recv().ok();
        }
    }
}

/// Runs a diagnosis beside the screen.
fn diagnose(agent: Connection, client: String, server: String, tell: Sender<Message>) {
    thread::spawn(move || {
        let report =
            cli::diagnose(&agent, &client, &server).unwrap_or_else(|error| format!("✗ {error:#}"));
        // Nobody waits for it any more.
        let _ = tell.send(Message::Report(diagnosis(&client, &server), report));
    });
}

/// Writes what is shown to a new file in the current directory; returns what was done.
fn export(app: &App) -> String {
    let hosts = app.shown();
    let time =
        hosts.iter().filter_map(|host| host.look.as_ref()).map(|look| look.answers.edges.timestamp);
    let Some(time) = time.max() else { return "no agent has answered yet".to_owned() };
    // Without the parts of a second, and without colons, which some file systems refuse.
    let seconds = api_types::Timestamp::from_seconds(time.seconds().floor());
    let path = format!(
        "portolan-{}-{}.json",
        app.wanted.view.as_str(),
        seconds.to_string().replace(':', "")
    );
    let write = || -> anyhow::Result<()> {
        let json = report::json(hosts, &app.wanted, app.window)?;
        let mut file = std::fs::File::create_new(&path)?;
        Ok(io::Write::write_all(&mut file, json.as_bytes())?)
    };
    match write() {
        Ok(()) => format!("written to {path}"),
        Err(error) => format!("cannot write {path}: {error:#}"),
    }
}

/// SIGTERM, SIGINT and SIGHUP end the program as key q does.
fn stop_at_signals(tell: Sender<Message>) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("watching for signals")?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            let _ = tell.send(Message::Stop);
        }
    });
    Ok(())
}

/// Reads keys until the terminal is gone.
fn read_keys(tell: Sender<Message>) {
    thread::spawn(move || {
        loop {
            let message = match crossterm::event::read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => Message::Key(key),
                Ok(Event::Resize(..)) => Message::Resized,
                Ok(_) => continue,
                Err(_) => Message::Stop,
            };
            let is_end = matches!(message, Message::Stop);
            if tell.send(message).is_err() || is_end {
                return;
            }
        }
    });
}

// === impl Raw ===

impl Raw {
    fn enter() -> io::Result<Self> {
        enable_raw_mode()?;
        // From here on the terminal is restored, also if the next step fails.
        let raw = Self;
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // The message of a panic is to be read on the usual screen.
            restore();
            usual(panic);
        }));
        execute!(io::stdout(), EnterAlternateScreen)?;
        Ok(raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// As far as the terminal is still there.
fn restore() {
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}
