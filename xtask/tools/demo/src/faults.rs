//! The faults: each happens in production systems, and is caused here in the same way.
//! What has to be said about each is beside it: the alert, and the answers of the commands.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, bail};

use crate::network::{self, run_in};
use crate::programs::{self, Folder, Running};

/// A fault, and the alert that has to name it.
#[derive(Debug)]
pub struct Fault {
    pub name: &'static str,
    /// A fault of the shop.
    pub what: &'static str,
    pub alert: &'static str,
    /// The service that the alert has to name.
    pub culprit: &'static str,
    /// Critical alerts that are right too, which a warning may not hide.
    pub also: &'static [&'static str],
    /// The code of `portolan check` that explains all others, and a word of its title.
    pub code: &'static str,
    pub says: &'static str,
    /// Who is diagnosed: the words behind `portolan diagnose`.
    pub between: &'static [&'static str],
    /// The cause in its verdict.
    pub cause: &'static str,
}

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "port-conflict",
        what: "an older program keeps restarting on the catalog's port",
        alert: "PortolanPortConflict",
        culprit: "legacy.js",
        also: &[],
        code: "PO301",
        says: "legacy.js",
        between: &["legacy.js"],
        cause: "bind_failed",
    },
    Fault {
        name: "gateway-timeout",
        what: "the catalog answers after 1.5 s, the gateway waits 1 s",
        alert: "PortolanRequestsUnanswered",
        culprit: "catalog.js",
        also: &[],
        code: "PC106",
        says: "catalog.js",
        between: &["gateway", "catalog.js"],
        cause: "never_answers",
    },
    Fault {
        name: "http-errors",
        what: "a release of the catalog answers every third request with 500",
        alert: "PortolanErrorResponses",
        culprit: "catalog.js",
        also: &[],
        code: "PC110",
        says: "catalog.js",
        between: &["gateway", "catalog.js"],
        cause: "server_error",
    },
    Fault {
        name: "auth-down",
        what: "the auth service is killed",
        alert: "PortolanConnectionsRefused",
        culprit: "auth.js",
        // For five seconds refused connects count as those of a server that stops, which at the speed
        // of the demo is longer than the budget's alert waits.
        also: &["PortolanConnectBudgetBurnFast"],
        code: "PC101",
        says: "auth.js",
        between: &["gateway", "auth.js"],
        cause: "nothing_listens",
    },
    Fault {
        name: "keepalive-resets",
        what: "auth closes idle connections sooner than the gateway",
        alert: "PortolanKeepaliveMismatch",
        culprit: "auth.js",
        also: &[],
        code: "PC108",
        says: "auth.js",
        between: &["gateway", "auth.js"],
        cause: "keepalive_mismatch",
    },
    Fault {
        name: "slow-database",
        what: "a report keeps locking the table of orders, for 800 ms each time",
        alert: "PortolanLatencyHigh",
        culprit: "orders-db",
        also: &[],
        code: "PP201",
        says: "orders-db",
        between: &["orders.js", "orders-db"],
        cause: "slow_server",
    },
    Fault {
        name: "packet-loss",
        what: "every sixteenth packet between gateway and catalog is dropped",
        alert: "PortolanRetransmitsHigh",
        culprit: "catalog.js",
        // One SYN in eight is lost, and the gateway waits a second for a connection.
        also: &["PortolanConnectionsTimingOut", "PortolanConnectBudgetBurnFast"],
        code: "PP204",
        says: "catalog.js",
        between: &["gateway", "catalog.js"],
        cause: "loss",
    },
    Fault {
        name: "uneven-balance",
        what: "after maintenance one of three backends of orders kept a tenth of its weight",
        alert: "PortolanUnevenBalance",
        culprit: "orders.js",
        also: &[],
        code: "PP202",
        says: "orders.js",
        between: &["orders-lb", "orders.js"],
        cause: "uneven",
    },
    Fault {
        name: "segment-violation",
        what: "a report beside the gateway asks the database directly, past the services",
        alert: "PortolanSegmentViolation",
        culprit: "orders-db",
        also: &[],
        code: "PS401",
        says: "orders-db",
        between: &["report.js", "orders-db"],
        cause: "forbidden",
    },
    Fault {
        name: "port-exhaustion",
        what: "a scraper without a pool, beside auth, uses up the few local ports of that host",
        alert: "PortolanLocalPortsExhausted",
        culprit: "cache",
        also: &[],
        code: "PO320",
        says: "auth.js",
        between: &["scraper.js", "cache"],
        cause: "no_local_port",
    },
    Fault {
        name: "listen-overflow",
        what: "the catalog hangs, and its accept queue fills",
        alert: "PortolanListenOverflow",
        culprit: "catalog.js",
        also: &[],
        code: "PP203",
        says: "catalog.js",
        between: &["gateway", "catalog.js"],
        cause: "process_stopped",
    },
];

/// The active faults.
#[derive(Default)]
pub struct Broken {
    faults: Vec<&'static str>,
    /// Programs that are there only for the fault.
    extra: Vec<Running>,
}

pub fn find(name: &str) -> Result<&'static Fault> {
    let names = || FAULTS.iter().map(|fault| fault.name).collect::<Vec<_>>().join(", ");
    FAULTS
        .iter()
        .find(|fault| fault.name == name)
        .with_context(|| format!("unknown fault {name}: choose from {}", names()))
}

type Shop = Vec<(&'static str, Running)>;

impl Broken {
    pub fn break_it(&mut self, name: &str, folder: &Folder, shop: &mut Shop) -> Result<()> {
        let fault = find(name)?;
        if self.faults.contains(&fault.name) {
            return Ok(());
        }
        match fault.name {
            // The programs do these themselves, when they find the names in the list.
            "gateway-timeout" | "http-errors" | "keepalive-resets" => {}
            "auth-down" => shop.retain(|(name, _)| *name != "auth"),
            "slow-database" => {
                let lock = "BEGIN; LOCK TABLE orders; SELECT pg_sleep(0.8); COMMIT; SELECT pg_sleep(0.05);";
                let mut command = network::command("orders-db", "sh");
                let script = format!(
                    "while sleep 0.05; do psql -q -U postgres -h {} -c '{lock}'; done",
                    folder.path("postgres").display()
                );
                command.args(["-c", &script]);
                self.extra.push(Running::start(&mut command, &folder.log("lock"))?);
            }
            "port-conflict" => {
                let script = "while sleep 1; do node \"$0\"; done";
                let mut command = network::command("catalog", "sh");
                command.args(["-c", script]).arg(folder.path("legacy.js"));
                self.extra.push(Running::start(&mut command, &folder.log("legacy"))?);
            }
            "uneven-balance" => weigh(folder, "10%")?,
            "segment-violation" => {
                let script = "while sleep 1; do node \"$0\"; done";
                let mut command = network::command("gateway", "sh");
                command.args(["-c", script]).arg(folder.path("report.js"));
                self.extra.push(Running::start(&mut command, &folder.log("report"))?);
            }
            "packet-loss" => network::feed(
                network::command("catalog", "nft").args(["-f", "-"]),
                "table ip fault {\n chain in { type filter hook input priority 0;\n  \
                 ip saddr 172.20.0.2 numgen random mod 16 == 0 drop\n }\n \
                 chain out { type filter hook output priority 0;\n  \
                 ip daddr 172.20.0.2 numgen random mod 16 == 0 drop\n }\n}\n",
            )?,
            "port-exhaustion" => {
                let range = "net.ipv4.ip_local_port_range=40000 40031";
                run_in("auth", "sysctl", &["-q", "-w", range])?;
                self.extra.push(programs::node(folder, "auth", "scraper.js")?);
            }
            "listen-overflow" => program(shop, "catalog")?.signal(libc::SIGSTOP),
            other => bail!("unknown fault {other}: without a name the command lists them"),
        }
        self.faults.push(fault.name);
        self.publish(folder)
    }

    pub fn heal(&mut self, folder: &Folder, shop: &mut Shop) -> Result<()> {
        self.extra.clear();
        for fault in std::mem::take(&mut self.faults) {
            match fault {
                "auth-down" => shop.push(("auth", programs::node(folder, "auth", "auth.js")?)),
                "uneven-balance" => weigh(folder, "100%")?,
                "packet-loss" => run_in("catalog", "nft", &["flush", "ruleset"])?,
                "port-exhaustion" => {
                    let range = "net.ipv4.ip_local_port_range=32768 60999";
                    run_in("auth", "sysctl", &["-q", "-w", range])?;
                }
                "listen-overflow" => program(shop, "catalog")?.signal(libc::SIGCONT),
                _ => {}
            }
        }
        self.publish(folder)
    }

    /// Writes the list that the shop's programs read.
    fn publish(&self, folder: &Folder) -> Result<()> {
        fs::write(folder.path("broken"), self.faults.join("\n"))
            .context("writing the list of faults")
    }
}

fn program<'a>(shop: &'a Shop, name: &str) -> Result<&'a Running> {
    let found = shop.iter().find(|(here, _)| *here == name);
    found.map(|(_, program)| program).with_context(|| format!("{name} does not run"))
}

/// Has the balancer weigh the first backend of orders anew.
fn weigh(folder: &Folder, weight: &str) -> Result<()> {
    let answer = (|| {
        let mut stream = UnixStream::connect(folder.path("haproxy.sock"))?;
        writeln!(stream, "set weight orders/orders-1 {weight}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    })();
    let answer = answer.context("talking to the balancer")?;
    // It responds only if it refuses.
    anyhow::ensure!(answer.trim().is_empty(), "the balancer refuses: {}", answer.trim());
    Ok(())
}
