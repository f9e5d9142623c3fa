//! The programs of the shop and of its monitoring: started, stopped by pid, and ended with the
//! demo.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use portolan_kit::shell;

use crate::cleanup::{Cleanup, Resource};
use crate::{network, stop};

const PATIENCE: Duration = Duration::from_secs(20);

/// Names of the shop's services; other services of the machine are ignored.
pub const SERVICES: [&str; 11] = [
    "users.js",
    "gateway",
    "auth.js",
    "catalog.js",
    "orders-lb",
    "orders.js",
    "orders-db",
    "cache",
    "scraper.js",
    "legacy.js",
    "report.js",
];

/// The programs' text, and their configuration; `@…@` is filled in.
const FILES: [(&str, &str); 14] = [
    ("faults.js", include_str!("shop/faults.js")),
    ("redis.js", include_str!("shop/redis.js")),
    ("postgres.js", include_str!("shop/postgres.js")),
    ("auth.js", include_str!("shop/auth.js")),
    ("catalog.js", include_str!("shop/catalog.js")),
    ("orders.js", include_str!("shop/orders.js")),
    ("users.js", include_str!("shop/users.js")),
    ("scraper.js", include_str!("shop/scraper.js")),
    ("legacy.js", include_str!("shop/legacy.js")),
    ("report.js", include_str!("shop/report.js")),
    ("portolan.toml", include_str!("shop/portolan.toml")),
    ("nginx.conf", include_str!("shop/nginx.conf")),
    ("haproxy.cfg", include_str!("shop/haproxy.cfg")),
    ("prometheus.yml", include_str!("shop/prometheus.yml")),
];

/// A program that ends with this value.
pub struct Running {
    child: Child,
}

impl Running {
    /// Starts it; its output goes to `log`. If this process is killed, it ends as well.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let name = shell::name_of(command);
        let log = File::options().create(true).append(true).open(log).context("opening a log")?;
        command.stdin(Stdio::null()).stdout(log.try_clone().context("sharing a log")?).stderr(log);
        let die_with_us = || {
            // SAFETY: a plain system call, sound between fork and exec.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            Ok(())
        };
        // SAFETY: the closure makes one system call and touches no memory of others. The process
        // group of its own keeps the terminal's Ctrl-C from it: we end it in order.
        unsafe { command.pre_exec(die_with_us) }.process_group(0);
        let child = command.spawn().with_context(|| format!("starting `{name}`"))?;
        Ok(Self { child })
    }

    /// Sends a signal, to its children as well.
    pub fn signal(&self, signal: i32) {
        // SAFETY: a plain system call; the child has not been waited for, so the group is its own.
        unsafe { libc::kill(-self.child.id().cast_signed(), signal) };
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(libc::SIGCONT);
        self.signal(libc::SIGTERM);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) {
            if self.has_ended() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.signal(libc::SIGKILL);
        let _ = self.child.wait();
    }
}

/// The folder with everything the shop needs; removed when dropped.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new(cleanup: &mut Cleanup) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("portolan-demo-").tempdir()?;
        cleanup.note(&Resource::Folder(folder.path().to_path_buf()))?;
        // PostgreSQL refuses to be root, and has to get in.
        shell::quiet(Command::new("chmod").arg("755").arg(folder.path()))?;
        Ok(Self(folder))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.log"))
    }

    /// Writes the programs and their configuration, filling in `values`.
    pub fn fill(&self, values: &[(&str, &str)]) -> Result<()> {
        let here = self.path("");
        let here = here.to_string_lossy();
        for (name, text) in FILES {
            let mut text = text.replace("@DIR@", here.trim_end_matches('/'));
            for (key, value) in values {
                text = text.replace(&format!("@{key}@"), value);
            }
            fs::write(self.path(name), text).with_context(|| format!("writing {name}"))?;
        }
        fs::write(self.path("broken"), "").context("writing faults")
    }

    /// `program` under another name: that of its role here.
    pub fn called(&self, name: &str, program: &str) -> Result<String> {
        let link = self.path(name);
        if !link.exists() {
            std::os::unix::fs::symlink(program, &link)
                .with_context(|| format!("calling {program} {name}"))?;
        }
        Ok(link.to_string_lossy().into_owned())
    }
}

/// A Node.js program of the shop, at a host.
pub fn node(folder: &Folder, host: &str, script: &str) -> Result<Running> {
    let mut command = network::command(host, "node");
    command.arg(folder.path(script));
    Running::start(&mut command, &folder.log(host))
}

/// All services, in the order of their dependencies.
pub fn shop(folder: &Folder) -> Result<Vec<(&'static str, Running)>> {
    let mut shop = vec![("orders-db", postgres(folder)?), ("cache", redis(folder)?)];
    for (host, script) in [
        ("auth", "auth.js"),
        ("catalog", "catalog.js"),
        ("orders-1", "orders.js"),
        ("orders-2", "orders.js"),
        ("orders-3", "orders.js"),
    ] {
        shop.push((host, node(folder, host, script)?));
    }
    let haproxy = folder.called("orders-lb", &path_of("haproxy")?)?;
    let mut command = network::command("orders-lb", &haproxy);
    command.arg("-db").arg("-f").arg(folder.path("haproxy.cfg"));
    shop.push(("orders-lb", Running::start(&mut command, &folder.log("orders-lb"))?));
    let nginx = folder.called("gateway", &path_of("nginx")?)?;
    let mut command = network::command("gateway", &nginx);
    command.arg("-c").arg(folder.path("nginx.conf"));
    shop.push(("gateway", Running::start(&mut command, &folder.log("gateway"))?));
    stop::pause(Duration::from_secs(2))?;
    shop.push(("users", node(folder, "users", "users.js")?));
    stop::pause(Duration::from_secs(1))?;
    for (name, program) in &mut shop {
        if program.has_ended() {
            let log = fs::read_to_string(folder.log(name)).unwrap_or_default();
            bail!("{name} ended at once:\n{log}");
        }
    }
    Ok(shop)
}

fn redis(folder: &Folder) -> Result<Running> {
    let redis = folder.called("cache", &path_of("redis-server")?)?;
    let mut command = network::command("cache", &redis);
    command.args(["--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]);
    command.arg("--dir").arg(folder.path(""));
    Running::start(&mut command, &folder.log("cache"))
}

fn postgres(folder: &Folder) -> Result<Running> {
    let bin = postgres_programs()?;
    let data = folder.path("postgres");
    fs::create_dir(&data).context("making room for the database")?;
    shell::quiet(Command::new("chown").arg("postgres:").arg(&data))?;
    let options = ["--auth=trust", "--no-sync", "--encoding=UTF8"];
    shell::quiet(
        as_postgres(&mut Command::new("setpriv")).arg(bin.join("initdb")).args(options).arg(&data),
    )
    .context("making the database")?;
    fs::write(data.join("pg_hba.conf"), "local all all trust\nhost all all all trust\n")
        .context("letting the shop into its database")?;
    let program = folder.called("orders-db", &bin.join("postgres").to_string_lossy())?;
    let mut command = network::command("orders-db", "setpriv");
    as_postgres(&mut command).arg(program).arg("-D").arg(&data);
    command.args(["-c", "listen_addresses=*", "-c", "fsync=off"]);
    command.args(["-c", &format!("unix_socket_directories={}", data.display())]);
    let running = Running::start(&mut command, &folder.log("orders-db"))?;
    let began = Instant::now();
    while let Err(error) =
        psql(folder, "CREATE TABLE orders (id bigserial, at timestamptz DEFAULT now())")
    {
        if began.elapsed() > PATIENCE {
            return Err(error.context("the database does not start"));
        }
        stop::pause(Duration::from_millis(200))?;
    }
    Ok(running)
}

/// A question to the database, at its own host.
pub fn psql(folder: &Folder, question: &str) -> Result<()> {
    shell::quiet(&mut psql_command(folder, question))
}

pub fn psql_command(folder: &Folder, question: &str) -> Command {
    let mut command = network::command("orders-db", "psql");
    command
        .args(["-q", "-U", "postgres", "-h"])
        .arg(folder.path("postgres"))
        .args(["-c", question]);
    command
}

fn as_postgres(command: &mut Command) -> &mut Command {
    command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"])
}

/// Debian's folder with the programs of the newest PostgreSQL.
fn postgres_programs() -> Result<PathBuf> {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    versions.sort();
    versions.pop().context("PostgreSQL is not installed")
}

/// The file that is started for `program`.
pub fn path_of(program: &str) -> Result<String> {
    let path = shell::output(Command::new("sh").args(["-c", &format!("command -v {program}")]))
        .with_context(|| format!("{program} is not installed"))?;
    Ok(path.trim().to_owned())
}
