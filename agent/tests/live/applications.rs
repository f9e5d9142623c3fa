//! Applications behind interpreters, servers of applications and process titles: each is one
//! service with the same name as client, as listener and in `ports`, whatever its processes are
//! called and whichever was first seen. Titles, arguments and working directories are those of
//! the real programs (PM2, gunicorn, celery, puma, unicorn, Next.js, uvicorn).

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::agent::Agent;
use crate::namespace::{Namespace, Pair};

/// Sets its title where the real program does, listens, connects to itself once, and `COUNT` times
/// to `SINK`. With `WORKER` a worker of `multiprocessing` connects, as `uvicorn --workers` starts
/// them.
const PROGRAM: &str = r#"
import ctypes, multiprocessing, os, socket, sys, time
def set_title(text):
    title = text.encode()
    if "comm" in os.environ["WHERE"]:
        ctypes.CDLL(None).prctl(15, title[:15], 0, 0, 0)
    if "argv" in os.environ["WHERE"]:
        start, end = map(int, open("/proc/self/stat").read().rsplit(")", 1)[1].split()[45:47])
        assert len(title) < end - start, (len(title), end - start)
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, title, len(title))
def work():
    address = "::1" if os.environ["FAMILY"] == "6" else "127.0.0.1"
    for turn in range(int(os.environ["COUNT"])):
        if "%d" in os.environ["TITLE"]:
            set_title(os.environ["TITLE"] % (turn * 7))
        socket.create_connection((address, int(os.environ["SINK"]))).close()
def serve(done):
    work()
    done.set()
    time.sleep(3600)
if __name__ == "__main__":
    title = os.environ["TITLE"]
    if title and "late" not in os.environ["WHERE"]:
        set_title(title.replace("%d", "0"))
    family = socket.AF_INET6 if os.environ["FAMILY"] == "6" else socket.AF_INET
    listener = socket.socket(family)
    listener.bind(("::1" if os.environ["FAMILY"] == "6" else "127.0.0.1", int(os.environ["PORT"])))
    listener.listen()
    if title and "late" in os.environ["WHERE"]:
        set_title(title.replace("%d", "0"))
    socket.create_connection(listener.getsockname()[:2]).close()
    if "WORKER" in os.environ:
        context = multiprocessing.get_context("spawn")
        done = context.Event()
        context.Process(target=serve, args=(done,), daemon=True).start()
        done.wait()
    else:
        work()
    print("ready", flush=True)
    sys.stdin.read()
"#;

/// An application, as one of its processes runs.
struct Application {
    /// The file of the script, below the directory.
    script: &'static str,
    /// Whether the kernel starts the script by its first line, which makes its file name the
    /// command name; else it is `python3 SCRIPT`.
    is_executed: bool,
    arguments: &'static [&'static str],
    /// The working directory, below the test's.
    directory: &'static str,
    title: &'static str,
    /// What the title is written over (`comm`, `argv`), and whether only after listen (`late`).
    over: &'static str,
    name: &'static str,
}

const fn titled(directory: &'static str, title: &'static str, name: &'static str) -> Application {
    let script = "a-path-that-leaves-room-for-every-title/that-these-programs-set/program";
    Application {
        script,
        is_executed: false,
        arguments: &[],
        directory,
        title,
        over: "comm+argv",
        name,
    }
}

const fn plain(
    script: &'static str,
    is_executed: bool,
    arguments: &'static [&'static str],
    directory: &'static str,
    name: &'static str,
) -> Application {
    Application { script, is_executed, arguments, directory, title: "", over: "", name }
}

const APPLICATIONS: &[Application] = &[
    titled("pm2", "node /srv/shop/orders.js", "orders.js"),
    titled("pm2", "node /srv/shop/stock.js", "stock.js"),
    titled("pm2", "node /srv/shop/cart.js", "cart.js"),
    titled("pm2", "node /srv/shopfront/index.js", "shopfront"),
    titled("web", "next-server (v14.2.35)", "web"),
    titled("admin", "next-server (v14.2.35)", "admin"),
    titled("x", "[celeryd: celery@host:MainProcess] -active- (-A shop.tasks worker)", "shop.tasks"),
    titled("x", "gunicorn: worker [billing.wsgi:app]", "billing.wsgi"),
    titled("ledger", "gunicorn: worker [app:app]", "ledger"),
    Application {
        title: "gunicorn: master [shop.wsgi:app]",
        over: "comm+argv+late",
        ..plain("bin/gunicorn", true, &["-w", "2", "shop.wsgi:app"], "shop", "shop.wsgi")
    },
    Application {
        title: "gunicorn: master [mail.wsgi:app]",
        over: "comm+argv+late",
        ..plain("bin/gunicorn", true, &["-w", "2", "mail.wsgi:app"], "shop", "mail.wsgi")
    },
    Application {
        title: "puma: cluster worker %d: 4711 [front]",
        over: "argv",
        ..plain("bin/puma", true, &["--and", "more", "room", "for", "it"], "front", "front")
    },
    Application {
        title: "unicorn worker[%d] -l 80",
        over: "argv",
        ..plain("bin/unicorn", true, &["-l", "80"], "unishop", "unishop")
    },
    titled("x", "spamd child [%d of 99]", "spamd"),
    plain("main.py", false, &[], "first", "first"),
    plain("main.py", false, &[], "second", "second"),
    plain("src/main.py", false, &[], "third", "third"),
    plain("bin/uvicorn", true, &["asgi.web:app", "--workers", "2"], "shop", "asgi.web"),
];

struct Program(Child);

impl Program {
    /// Starts the application in a namespace. It connects to `sink` as often as the last argument
    /// says.
    fn start(
        net: &Namespace,
        (python, folder): (&str, &Path),
        application: &Application,
        port: u16,
        (sink, count): (u16, u64),
    ) -> Self {
        let Application { script, is_executed, arguments, directory, title, over, .. } =
            *application;
        let directory = folder.join("srv").join(directory);
        let path = directory.join(script);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!{python}\n{PROGRAM}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let path = if title.is_empty() && !is_executed { Path::new(script) } else { &path };
        let mut command = if is_executed {
            net.command(path.to_str().unwrap())
        } else {
            let mut command = net.command(python);
            command.arg(path);
            command
        };
        command.args(arguments).current_dir(&directory);
        let family = if port.is_multiple_of(2) { "4" } else { "6" };
        command.envs([("TITLE", title), ("WHERE", over), ("FAMILY", family)]);
        command.envs([("PORT", port.to_string()), ("SINK", sink.to_string())]);
        command.env("COUNT", count.to_string());
        if script == "bin/uvicorn" {
            command.env("WORKER", "yes");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "{title} {script}");
        Self(child)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // At the end of its input it ends its worker, too.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The interpreter itself, which may be behind a script.
fn python() -> Option<String> {
    let print = "import sys; print(sys.executable)";
    let output = Command::new("python3").args(["-c", print]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !path.is_empty()).then_some(path)
}

#[test]
fn an_application_is_one_service_as_client_and_as_listener() {
    needs_kernel!();
    let Some(python) = python() else {
        println!("SKIPPED: python3 is not installed");
        return;
    };
    let net = Pair::new();
    let folder = tempfile::tempdir().unwrap();
    for address in ["127.0.0.1:18699", "[::1]:18699"] {
        let sink = net.server.within(|| TcpListener::bind(address).unwrap());
        // Ends with the test.
        thread::spawn(move || sink.incoming().for_each(drop));
    }
    let run = |first: u16| -> Vec<Program> {
        let start = |(at, one): (usize, &Application)| {
            let count = at as u64 + 2;
            Program::start(
                &net.server,
                (&python, folder.path()),
                one,
                first + at as u16,
                (18_699, count),
            )
        };
        APPLICATIONS.iter().enumerate().map(start).collect()
    };
    // Some were there before the agent, the same again come while it runs.
    let _before = run(18_700);
    let agent = Agent::start();
    let _after = run(18_800);
    let wrong = |now: &crate::scrape::Scrape| -> Vec<String> {
        let mut wrong = Vec::new();
        for (at, Application { name, .. }) in APPLICATIONS.iter().enumerate() {
            for port in [18_700 + at, 18_800 + at].map(|port| port.to_string()) {
                let is_named =
                    now.has("portolan_port_listeners", &[("port", &port), ("service", name)]);
                if !is_named {
                    wrong.push(format!("{name} does not listen on {port}"));
                }
            }
            let port = (18_800 + at).to_string();
            let client = [("client", *name), ("port", "18699"), ("role", "client")];
            let server = [("server", *name), ("port", &port), ("role", "server")];
            let found = (now.edges(&client).all_connects(), now.edges(&server).all_connects());
            if found != (at as u64 + 2, 1) {
                wrong.push(format!("{name}: {found:?}, {} connects are right", at + 2));
            }
        }
        wrong
    };
    agent.eventually(Vec::new(), wrong);
    let ports = agent.json("/api/v1/ports").to_string();
    for Application { name, .. } in APPLICATIONS {
        assert!(ports.contains(&format!("\"{name}\"")), "{name} in {ports}");
    }
    agent.stop();
}

/// Sets its title as PM2 does, listens, and connects `COUNT` times to `SINK`, by IPv4 and IPv6 in
/// turn.
const NODE: &str = r"
process.title = process.env.TITLE;
const net = require('net'), of = (name) => Number(process.env[name]);
net.createServer((client) => client.end()).listen(of('PORT'), '::1', () => {
    let open = of('COUNT');
    for (let turn = of('COUNT'); turn > 0; turn--)
        net.connect(of('SINK'), turn % 2 ? '::1' : '127.0.0.1', function () {
            this.end();
            if (--open === 0) console.log('ready');
        });
});
process.stdin.resume().on('end', () => process.exit());
";

#[test]
fn node_programs_whose_titles_begin_alike_are_counted_apart() {
    needs_kernel!();
    if !Command::new("node").arg("-v").output().is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: node is not installed");
        return;
    }
    let net = Pair::new();
    for address in ["127.0.0.1:18699", "[::1]:18699"] {
        let sink = net.server.within(|| TcpListener::bind(address).unwrap());
        thread::spawn(move || sink.incoming().for_each(drop));
    }
    let agent = Agent::start();
    let cases = [
        ("orders.js", "node /srv/shop/orders.js", 18_601, 5),
        ("stock.js", "node /srv/shop/stock.js", 18_602, 10),
        ("shop", "node /srv/shop/index.js", 18_603, 20),
    ];
    let start = |(_, title, port, count): &(&str, &str, u16, u64)| {
        let mut command = net.server.command("node");
        // A title is cut where the arguments ended.
        command.args(["-e", NODE]).env("TITLE", title).env("SINK", "18699");
        command.env("PORT", port.to_string()).env("COUNT", count.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "{title}");
        Program(child)
    };
    let _programs: Vec<Program> = cases.iter().map(start).collect();
    agent.eventually(cases.map(|(name, _, port, count)| (name, true, port, count)), |now| {
        cases.map(|(name, _, port, _)| {
            let listens = [("port", &*port.to_string()), ("service", name)];
            let client = [("client", name), ("port", "18699"), ("role", "client")];
            let is_named = now.has("portolan_port_listeners", &listens);
            (name, is_named, port, now.edges(&client).all_connects())
        })
    });
    agent.stop();
}

/// As PM2 in cluster mode: the daemon listens and accepts, and passes each connection to a worker,
/// which is the application.
const CLUSTER: &str = r"
const cluster = require('cluster'), net = require('net');
if (cluster.isPrimary) {
    process.title = 'PM2 v5.3.0: God Daemon (/root/.pm2)';
    cluster.on('listening', () => console.log('ready')).fork();
    process.stdin.resume().on('end', () => process.exit());
} else {
    process.title = 'node /srv/shop/' + process.env.NAME;
    net.createServer((client) => client.resume()).listen(Number(process.env.PORT), '0.0.0.0');
}
";

#[test]
fn a_program_that_accepts_for_others_is_not_the_server_of_their_connections() {
    needs_kernel!();
    if !Command::new("node").arg("-v").output().is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: node is not installed");
        return;
    }
    let net = Pair::new();
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("cluster.js");
    fs::write(&script, CLUSTER).unwrap();
    let agent = Agent::start();
    let start = |(name, port): &(&str, u16)| {
        let mut command = net.server.command("node");
        // A title is cut where the arguments ended.
        command.arg(&script).arg("room for the titles").env("NAME", name);
        command.env("PORT", port.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "{name}");
        Program(child)
    };
    let cases = [("orders.js", 18_611), ("stock.js", 18_612)];
    let _programs: Vec<Program> = cases.iter().map(start).collect();
    let connect = |(_, port): &(&str, u16)| net.client.connect((net.server.v4, *port)).unwrap();
    let _clients: Vec<_> = cases.iter().chain(&cases[..1]).map(connect).collect();
    let expected = [("orders.js", 2, 2, true), ("stock.js", 1, 1, true)];
    agent.eventually((expected, 0), |now| {
        let found = cases.map(|(name, port)| {
            let port = port.to_string();
            let connects = |role: &str| {
                let labels = [("server", name), ("port", &*port), ("role", role)];
                now.edges(&labels).all_connects()
            };
            let listens = [("port", &*port), ("service", name)];
            let is_named = now.has("portolan_port_listeners", &listens);
            (name, connects("client"), connects("server"), is_named)
        });
        (found, now.edges(&[("server", "PM2")]).all_connects())
    });
    for (name, port) in cases {
        let ports = agent.json(&format!("/api/v1/ports?port={port}"));
        let holder = &ports["ports"][0]["holder"];
        // The process is the daemon, which has the socket.
        assert_eq!((&holder["service"]["name"], &holder["command"]), (&name.into(), &"PM2".into()));
    }
    agent.stop();
}
