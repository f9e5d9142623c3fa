//! Programs of templates in directories that name nothing: the project's manifest does.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{edges, end, lacking, until};
use crate::agent::Agent;
use crate::namespace::Pair;

/// Listens on a port and connects to another one, for ever.
const NODE: &str = "
const net = require('net');
net.createServer(() => {}).listen(Number(process.argv[2]));
setInterval(() => net.connect(Number(process.argv[3]), '127.0.0.1').on('error', () => {}), 300);
";
const PYTHON: &str = "
import socket, sys, time
listener = socket.create_server(('0.0.0.0', int(sys.argv[1])))
while True:
    try:
        socket.create_connection(('127.0.0.1', int(sys.argv[2]))).close()
    except OSError:
        pass
    time.sleep(0.3)
";

/// A program that is killed in the end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_templates_program_is_called_by_its_manifest_as_listener_as_client_and_in_the_table_of_ports() {
    needs_kernel!();
    if let Some(program) = lacking(&["node", "python3"]) {
        println!("SKIPPED: {program} is not installed");
        return;
    }
    let net = Pair::new();
    // Directories of random names below the temporary one name nothing.
    let folder = tempfile::tempdir().expect("a temporary directory");
    let tag = std::process::id();
    let project = |name: &str, manifest: &str, text: &str, script: &str, code: &str| {
        let src = folder.path().join(name).join("src");
        fs::create_dir_all(&src).expect("a directory");
        fs::write(src.parent().expect("above").join(manifest), text).expect("a manifest");
        fs::write(src.join(script), code).expect("a script");
        src
    };
    // Called `app`, as in many projects.
    let package = format!("{{\"name\": \"@shop/api{tag}\", \"version\": \"1.0.0\"}}");
    let node = project("app", "package.json", &package, "index.js", NODE);
    let table = format!("[project]\nname = \"cart{tag}\"\n");
    let python = project("work", "pyproject.toml", &table, "main.py", PYTHON);
    let start = |program: &str, folder: &Path, script: &str, own: u16, other: u16| {
        let mut command: Command = net.server.command(program);
        command.current_dir(folder).arg(script).args([own.to_string(), other.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Running(command.spawn().expect("it is installed"))
    };
    // One is there before the agent.
    let first = start("node", &node, "index.js", 18_961, 18_962);
    let is_there = || fs::read_to_string(format!("/proc/{}/net/tcp6", first.0.id()));
    until("node listens", || is_there().is_ok_and(|table| table.contains(":4A11")));
    let agent = Agent::start();
    let script = python.join("main.py").display().to_string();
    let second = start("python3", Path::new("/"), &script, 18_962, 18_961);
    for (name, own, other) in
        [(format!("api{tag}"), 18_961, 18_962), (format!("cart{tag}"), 18_962, 18_961)]
    {
        let full = net.server.full_name(&name);
        let port = own.to_string();
        let listens = [("service", &*name), ("port", &*port)];
        until(&format!("{name} listens"), || {
            agent.scrape().has("portolan_port_listeners", &listens)
        });
        until(&format!("{name} connects"), || {
            let all = edges(&agent);
            all.iter().any(|row| {
                row["role"] == "client" && row["port"] == other && end(row, "client") == full
            })
        });
        until(&format!("{name} has its port"), || {
            let ports = agent.json(&format!("/api/v1/ports?port={own}"));
            let rows = ports["ports"].as_array().expect("a list").iter();
            let ours = rows.filter(|row| row["netns"] == net.server.inode());
            let mut ours = ours.map(|row| row["holder"]["service"]["name"] == *name).peekable();
            ours.peek().is_some() && ours.all(|is_named| is_named)
        });
    }
    drop((first, second));
    agent.stop();
}
