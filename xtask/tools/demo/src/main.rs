//! `cargo xtask demo`: a shop of real programs in network namespaces, monitored by the agent, that
//! breaks on demand.
//!
//! The command stays in the foreground and owns everything it starts; `demo break FAULT` and
//! `demo heal`, from another terminal, send it requests over a socket. It ends by itself after a while, on
//! Ctrl-C, and with its terminal, and leaves nothing.

#![expect(unsafe_code, reason = "signals and scheduling of the programs it starts")]
#![expect(clippy::print_stdout, reason = "a terminal program")]

mod answers;
mod cleanup;
mod e2e;
mod faults;
mod network;
mod pictures;
mod programs;
mod stop;
mod watch;
mod webhook;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use portolan_dashboards::draw;
use portolan_kit::{apt, build, shell, tree};

use cleanup::Cleanup;
use faults::{Broken, FAULTS};
use network::Network;
use programs::{Folder, Running};
use watch::Watch;
use webhook::Webhook;

/// Services of the shop, and its monitoring.
const PACKAGES: [&str; 7] = [
    "haproxy",
    "iproute2",
    "nftables",
    "nginx-light",
    "postgresql",
    "prometheus",
    "prometheus-alertmanager",
];
const MORE_PACKAGES: [&str; 2] = ["redis-server", "procps"];

/// Run a shop of real programs, monitored, that breaks on demand
#[derive(clap::Parser)]
#[command(name = "cargo xtask demo", bin_name = "cargo xtask demo")]
struct Args {
    #[command(subcommand)]
    command: Option<Action>,
    /// Stop after this many minutes
    #[arg(long, value_name = "N", default_value_t = 60)]
    minutes: u64,
    /// How many times faster than in production alerts fire and resolve
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    faster: u64,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Inject a fault; without a name: list the faults
    Break { fault: Option<String> },
    /// Fix everything that was broken
    Heal,
    /// Break the shop in every way, or in those named, and require the right alerts
    Test { fault: Vec<String> },
    /// Break the shop in every way, or in those named, and require the right answers of
    /// `portolan check` and `portolan diagnose`
    Diagnose { fault: Vec<String> },
    /// Draw every dashboard of the running demo and the agent's page into a folder, as PNG
    Pictures {
        #[arg(default_value = "docs/images")]
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    portolan_kit::exit_code(demo(&Args::parse()))
}

fn demo(args: &Args) -> Result<()> {
    let Args { command, minutes, faster } = args;
    match command {
        None => run(Duration::from_secs(minutes * 60), *faster),
        Some(Action::Break { fault: None }) => {
            for fault in FAULTS {
                println!("{:18} {}", fault.name, fault.what);
            }
            Ok(())
        }
        Some(Action::Break { fault: Some(fault) }) => {
            let fault = faults::find(fault)?;
            ask(&format!("break {}", fault.name))?;
            println!("broken: {}; expect {}", fault.what, fault.alert);
            Ok(())
        }
        Some(Action::Test { fault }) => e2e::alerts(fault),
        Some(Action::Diagnose { fault }) => answers::diagnose(fault),
        Some(Action::Heal) => ask("heal").map(|_| println!("healed")),
        Some(Action::Pictures { folder }) => pictures::take(&ask("page")?, &ask("agent")?, folder),
    }
}

/// The running shop and its monitoring.
struct Demo {
    // Dropped in this order: programs before the namespaces they are in.
    shop: Vec<(&'static str, Running)>,
    broken: Broken,
    watch: Watch,
    /// Where its dashboards are drawn.
    page: Option<String>,
    folder: Folder,
    _network: Network,
    _cleanup: Cleanup,
}

impl Demo {
    /// With `priority`, other work of the machine waits: a test of objectives must not measure the
    /// load of the machine.
    fn start(webhook: &str, faster: u64, priority: bool) -> Result<Self> {
        if !shell::is_root() {
            bail!("network namespaces need root: run this as root");
        }
        install()?;
        let mut cleanup = Cleanup::open()?;
        stop::on_signals();
        let binary = binary()?;
        if priority {
            raise_priority();
        }
        let folder = Folder::new(&mut cleanup)?;
        let network = Network::new(&mut cleanup)?;
        fs::create_dir_all(folder.path("page")).context("making room for the page")?;
        let watch = Watch::start(&binary, &folder, webhook, faster, &mut cleanup)?;
        let shop = programs::shop(&folder)?;
        let broken = Broken::default();
        Ok(Self { shop, broken, watch, page: None, folder, _network: network, _cleanup: cleanup })
    }

    /// Executes a request and returns the response.
    fn execute(&mut self, request: &str) -> Result<String> {
        let Self { shop, broken, folder, page, watch, .. } = self;
        match request.split_once(' ') {
            Some(("break", fault)) => broken.break_it(fault, folder, shop).map(|()| String::new()),
            None if request == "heal" => broken.heal(folder, shop).map(|()| String::new()),
            None if request == "agent" => Ok(watch.agent.clone()),
            None if request == "page" => page.clone().context("it draws no dashboards here"),
            _ => bail!("unknown request: {request}"),
        }
    }
}

/// The agent: `PORTOLAN_BIN`, or the one that is shipped, built if necessary.
fn binary() -> Result<PathBuf> {
    match std::env::var_os("PORTOLAN_BIN") {
        Some(binary) => Ok(binary.into()),
        None => build::build(),
    }
}

fn run(length: Duration, faster: u64) -> Result<()> {
    // Notifications have somewhere to go: refused connects would be a fault of the demo's own.
    let webhook = Webhook::default().listen()?;
    let mut demo = Demo::start(&format!("http://{webhook}/"), faster, false)?;
    let drawn = draw::page(&demo.folder.path("page"));
    let Watch { agent, prometheus, alertmanager, .. } = &demo.watch;
    println!("\n  agent         http://{agent}/");
    println!("  prometheus    http://{prometheus}/alerts");
    println!("  alertmanager  http://{alertmanager}/");
    match drawn {
        Ok(()) => {
            let page = format!("http://{prometheus}/user/index.html");
            println!("  dashboards    {page}");
            demo.page = Some(page);
        }
        Err(error) => println!("  dashboards    not drawn here: {error:#}"),
    }
    println!("  break it      cargo xtask demo break FAULT");
    println!("  fix it        cargo xtask demo heal");
    println!("  stop          Ctrl-C, or wait {} minutes\n", length.as_secs() / 60);

    let path = socket()?;
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).context("listening for requests")?;
    listener.set_nonblocking(true).context("listening for requests")?;
    let began = Instant::now();
    while began.elapsed() < length && !stop::is_wanted() {
        match listener.accept() {
            Ok((stream, _)) => {
                if let Err(error) = serve(&mut demo, stream) {
                    println!("a request failed: {error:#}");
                }
            }
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
    println!("cleaning up");
    let _ = fs::remove_file(&path);
    Ok(())
}

/// The prefix of a successful response.
const DONE: &str = "done";

/// One request, one line as response.
fn serve(demo: &mut Demo, mut stream: UnixStream) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut request = String::new();
    BufReader::new(&stream).read_line(&mut request)?;
    let request = request.trim();
    println!("{request}");
    let answer = match demo.execute(request) {
        Ok(answer) => format!("{DONE} {answer}"),
        Err(error) => format!("{error:#}").replace('\n', " "),
    };
    writeln!(stream, "{answer}").context("answering")
}

/// Sends a request to the running demo and returns its response.
fn ask(request: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket()?)
        .context("no demo is running: start it with `cargo xtask demo` in another terminal")?;
    writeln!(stream, "{request}").context("talking to the demo")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).context("listening to the demo")?;
    match answer.trim().strip_prefix(DONE) {
        Some(answer) => Ok(answer.trim().to_owned()),
        None => bail!("the demo failed: {}", answer.trim()),
    }
}

fn socket() -> Result<PathBuf> {
    Ok(tree::target()?.join("demo.sock"))
}

/// Schedules this process and its children before everything of ordinary priority. A nice value
/// would not suffice: it only applies among the processes of one session.
fn raise_priority() {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: a plain system call on this thread, with a parameter that outlives it.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const parameters) } != 0 {
        println!("without CAP_SYS_NICE other work of this machine may look like slow services");
    }
}

fn install() -> Result<()> {
    if !apt::is_here() {
        return Ok(());
    }
    let mut missing = apt::missing(&PACKAGES);
    missing.extend(apt::missing(&MORE_PACKAGES));
    if !shell::exists("node") {
        missing.push("nodejs");
    }
    apt::install(&missing)
}
