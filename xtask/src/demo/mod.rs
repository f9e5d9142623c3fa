//! `cargo xtask demo`: a shop of real programs in network namespaces, watched by the agent, that
//! breaks on demand.
//!
//! The command stays in the foreground and owns everything it starts; `demo break FAULT` and
//! `demo heal`, from another terminal, ask it over a socket. It ends by itself after a while, on
//! Ctrl-C, and with its terminal, and leaves nothing.

mod e2e;
mod faults;
mod network;
mod programs;
mod watch;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{apt, build, dashboards, shell, tree};
pub use e2e::alerts as test_alerts;
use faults::{Broken, FAULTS};
use network::Network;
use programs::{Folder, Running};
use watch::Watch;

/// What the shop is made of, and what watches it.
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

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Action>,
    /// Stop after this many minutes
    #[arg(long, value_name = "N", default_value_t = 60)]
    minutes: u64,
    /// How many times as fast as in earnest alerts come and go
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    faster: u64,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Break something; without a name: say what can be broken
    Break { fault: Option<String> },
    /// Mend everything
    Heal,
}

pub fn demo(args: &Args) -> Result<()> {
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
        Some(Action::Heal) => ask("heal").map(|()| println!("healed")),
    }
}

/// The shop and its watchers, running.
struct Demo {
    // Dropped in this order: programs before the namespaces they are in.
    shop: Vec<(&'static str, Running)>,
    broken: Broken,
    watch: Watch,
    folder: Folder,
    _network: Network,
    _only: fs::File,
}

impl Demo {
    fn start(webhook: &str, faster: u64) -> Result<Self> {
        if !shell::is_root() {
            bail!("network namespaces need root: run this as root");
        }
        install()?;
        let only = lock()?;
        let binary = match std::env::var_os("PORTOLAN_BIN") {
            Some(binary) => binary.into(),
            None => build::build()?,
        };
        let folder = Folder::new()?;
        let network = Network::new()?;
        fs::create_dir_all(folder.path("page")).context("making room for the page")?;
        let watch = Watch::start(&binary, &folder, webhook, faster)?;
        let shop = programs::shop(&folder)?;
        Ok(Self { shop, broken: Broken::default(), watch, folder, _network: network, _only: only })
    }

    fn obey(&mut self, order: &str) -> Result<()> {
        let Self { shop, broken, folder, .. } = self;
        match order.split_once(' ') {
            Some(("break", fault)) => broken.break_it(fault, folder, shop),
            None if order == "heal" => broken.heal(folder, shop),
            _ => bail!("nobody understands {order}"),
        }
    }
}

fn run(length: Duration, faster: u64) -> Result<()> {
    stop_on_signals();
    let mut demo = Demo::start("http://127.0.0.1:9/", faster)?;
    let drawn = dashboards::draw::page(&demo.folder.path("page"));
    let Watch { agent, prometheus, alertmanager, .. } = &demo.watch;
    println!("\n  agent         http://{agent}/");
    println!("  prometheus    http://{prometheus}/alerts");
    println!("  alertmanager  http://{alertmanager}/");
    match drawn {
        Ok(()) => println!("  dashboards    http://{prometheus}/user/index.html"),
        Err(error) => println!("  dashboards    not drawn here: {error:#}"),
    }
    println!("  break it      cargo xtask demo break FAULT");
    println!("  mend it       cargo xtask demo heal");
    println!("  stop          Ctrl-C, or wait {} minutes\n", length.as_secs() / 60);

    let path = socket()?;
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).context("listening for orders")?;
    listener.set_nonblocking(true).context("listening for orders")?;
    let began = Instant::now();
    while began.elapsed() < length && !STOPPED.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                if let Err(error) = serve(&mut demo, stream) {
                    println!("an order failed: {error:#}");
                }
            }
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
    println!("cleaning up");
    let _ = fs::remove_file(&path);
    Ok(())
}

/// One order, one line of answer.
fn serve(demo: &mut Demo, mut stream: UnixStream) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut order = String::new();
    BufReader::new(&stream).read_line(&mut order)?;
    let order = order.trim();
    println!("{order}");
    let answer = match demo.obey(order) {
        Ok(()) => "done".to_owned(),
        Err(error) => format!("{error:#}").replace('\n', " "),
    };
    writeln!(stream, "{answer}").context("answering")
}

/// Has the running demo do something.
fn ask(order: &str) -> Result<()> {
    let mut stream = UnixStream::connect(socket()?)
        .context("no demo is running: start it with `cargo xtask demo` in another terminal")?;
    writeln!(stream, "{order}").context("talking to the demo")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).context("listening to the demo")?;
    match answer.trim() {
        "done" => Ok(()),
        answer => bail!("the demo says: {answer}"),
    }
}

fn socket() -> Result<PathBuf> {
    Ok(tree::target()?.join("demo.sock"))
}

/// There is one shop: its namespaces have names.
fn lock() -> Result<fs::File> {
    let path = std::env::temp_dir().join("portolan-demo.lock");
    let file = fs::File::create(&path).context("making sure that no other demo runs")?;
    if file.try_lock().is_err() {
        bail!("another demo runs or is cleaning up: stop it, or wait");
    }
    Ok(file)
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

static STOPPED: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_: libc::c_int) {
    STOPPED.store(true, Ordering::Relaxed);
}

/// Ctrl-C, a closed terminal and `kill` end the demo in order.
fn stop_on_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler stores to an atomic and does nothing else.
        unsafe { libc::signal(signal, stop as *const () as libc::sighandler_t) };
    }
}
