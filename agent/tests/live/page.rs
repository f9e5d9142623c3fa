//! The page in a real browser, on a real agent with real traffic. What it must do is in
//! `agent/crates/server/page/test/`; here is what it looks at: a server with two clients, one of
//! which also tries a port where nobody listens, and an agent that is restarted when the browser is
//! ready for it.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::agent::{Agent, Start};
use crate::exactness::{Server, free_port_in, missing};
use crate::facts::patience;
use crate::namespace::{Namespace, Pair};

const EXTERNAL_PATH: &str = "/behind/a/proxy";
/// How long the page may take to show something.
const PATIENCE: Duration = Duration::from_secs(20);

/// `node catalog.js ADDRESS PORT`: answers.
const SERVER: &str = r"
const [address, port] = process.argv.slice(2);
require('http').createServer((request, response) => response.end('ok')).listen(Number(port), address);
";

/// `node gateway.js ADDRESS PORT [REFUSED]`: asks 20 times a second, and tries another port.
const CLIENT: &str = r"
const http = require('http'), net = require('net');
const [host, port, refused] = process.argv.slice(2);
const agent = new http.Agent({ keepAlive: true });
setInterval(() => http.get({ host, port, agent }, (answer) => answer.resume()).on('error', () => {}), 50);
if (refused) setInterval(() => net.connect(Number(refused), host).on('error', () => {}), 100);
";

/// A program that ends with the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap_or_else(|error| panic!("starting {command:?}: {error}")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The folder where `cargo xtask test` has put Node's packages, with the tests as they are now.
fn tools() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let tools = target.join("page");
    if !tools.join("node_modules/playwright-core").is_dir() {
        return None;
    }
    fs::create_dir_all(tools.join("test")).expect("making a folder");
    for file in ["browser.mjs", "page.test.mjs"] {
        let source = root.join("agent/crates/server/page/test").join(file);
        fs::copy(source, tools.join("test").join(file)).expect("copying a test");
    }
    Some(tools)
}

fn node(namespace: &Namespace, script: &Path, arguments: &[String]) -> Command {
    let mut command = namespace.command("node");
    command.arg(script).args(arguments);
    command
}

#[test]
fn the_page_works_in_a_browser_on_real_traffic() {
    needs_kernel!();
    if let Some(why) = missing(&["node", "chromium"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let Some(tools) = tools() else {
        println!("SKIPPED: the page's packages are not installed: cargo xtask test does that");
        return;
    };
    let pair = Pair::new();
    let settings = [("web.external_path", EXTERNAL_PATH)];
    let agent = Agent::with(&settings);
    let scripts = tempfile::tempdir().expect("a temporary directory");
    let script = |name: &str, text: &str| {
        let path = scripts.path().join(name);
        fs::write(&path, text).expect("writing a script");
        path
    };
    let address = pair.server.v4.to_string();
    let port = free_port_in(&pair.server);
    let refused = free_port_in(&pair.server);
    let ends = [address, port.to_string()];
    let mut server = node(&pair.server, &script("catalog.js", SERVER), &ends);
    let _server = Server::start(&mut server, &pair.server, port, libc::SIGTERM);
    let [host, port_text] = ends.clone();
    let both = [host, port_text, refused.to_string()];
    let _clients = [
        Running::start(&mut node(&pair.client, &script("gateway.js", CLIENT), &both)),
        Running::start(&mut node(&pair.client, &script("report.js", CLIENT), &ends)),
    ];
    let facts = json!({
        "client": pair.client.full_name("gateway.js"),
        "other": pair.client.full_name("report.js"),
        "port": port,
        "refused": refused,
        "path": EXTERNAL_PATH,
    });

    let mut browser = Command::new("node");
    browser.arg("test/page.test.mjs").current_dir(tools).env("FACTS", facts.to_string());
    browser.env("URL", format!("http://{}", agent.address));
    browser.env("PATIENCE_MS", patience(PATIENCE).as_millis().to_string());
    browser.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut browser = Running(browser.spawn().expect("starting node"));
    let mut answers = browser.0.stdin.take().expect("stdin is piped");
    let lines = BufReader::new(browser.0.stdout.take().expect("stdout is piped")).lines();
    let listen = agent.address.to_string();
    let mut agent = Some(agent);
    for line in lines {
        let line = line.expect("text");
        println!("{line}");
        if line == "restart"
            && let Some(first) = agent.take()
        {
            first.stop();
            // Long enough for the page to ask in vain: it says when it has.
            continue;
        }
        if line == "stopped" {
            let settings = [("web.listen_address", listen.as_str()), settings[0]];
            let start = Start { settings: settings.to_vec(), unasked: true, ..Start::default() };
            agent = Some(Agent::launch(&start));
            writeln!(answers, "started").expect("the browser listens");
        }
    }
    let status = browser.0.wait().expect("a child of ours");
    assert!(status.success(), "the page does not do what it must: see above");
    agent.expect("it was restarted").stop();
}
