//! HAProxy: sections beside a file of its own, weights at the runtime API, all else by a signal.

use std::fs;
use std::path::Path;

use super::load::Load;
use super::{Ended, PATIENT, Stage};
use crate::exactness::{Server, missing};

struct Haproxy {
    to: String,
    main: String,
    reload: String,
    socket: String,
    _server: Server,
}

impl Haproxy {
    fn start(stage: &Stage, spec: &Path) -> Self {
        let spec = spec.display().to_string();
        let generated = stage.run(&["generate", "--spec", &spec, "--for", "haproxy"]);
        assert_eq!(generated.code, Some(0), "{generated:?}");
        let to = stage.write("api.cfg", &generated.stdout);
        let (socket, pid) = (stage.path("haproxy.sock"), stage.path("haproxy.pid"));
        let main = stage.write(
            "main.cfg",
            &format!(
                "global\n  maxconn 256\n  stats socket {} mode 600 level admin expose-fd listeners\n",
                socket.display()
            ),
        );
        let mut command = stage.pair.client.command("haproxy");
        command.args(["-W", "-db", "-p"]).arg(&pid).arg("-f").arg(&main).arg("-f").arg(&to);
        let server = Server::start(&mut command, &stage.pair.client, stage.port, libc::SIGTERM);
        Self {
            to: to.display().to_string(),
            main: main.display().to_string(),
            reload: format!("signal:{}", pid.display()),
            socket: socket.display().to_string(),
            _server: server,
        }
    }

    fn deploy(&self, stage: &Stage, spec: &Path, window: &str, more: &[&str]) -> Ended {
        let Self { to, main, reload, .. } = self;
        let spec = spec.display().to_string();
        let deploy = ["deploy", "--for", "haproxy", "--window", window];
        let files = ["--spec", &spec, "--to", to, "--main", main, "--reload", reload];
        stage.run(&[&deploy[..], &files, PATIENT, more].concat())
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.to).expect("the deployed file")
    }
}

#[test]
fn haproxy_takes_weights_without_a_reload_and_all_else_under_load_with_one() {
    needs_kernel!();
    if let Some(why) = missing(&["nginx", "haproxy"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let stage = Stage::new();
    let haproxy = Haproxy::start(&stage, &stage.spec("even.toml", [1, 1], &[]));
    let load = Load::start(&stage);

    let uneven = stage.spec("uneven.toml", [3, 1], &[]);
    let done = haproxy.deploy(&stage, &uneven, "1s", &["--runtime-socket", &haproxy.socket]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("weights set at the runtime API: api/b1 = 3\n"), "{done:?}");

    // Without the socket the same change is a reload.
    let even = stage.spec("even.toml", [1, 1], &[]);
    let done = haproxy.deploy(&stage, &even, "1s", &[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("new workers"), "{done:?}");
    let good = haproxy.text();

    let broken =
        stage.write("broken.cfg", &good.replace("default_backend api", "default_backend b"));
    let refused = haproxy.deploy(&stage, &even, "1s", &["--file", &broken.display().to_string()]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("HAProxy refuses the configuration"), "{refused:?}");
    assert_eq!(haproxy.text(), good);

    let dead = stage.spec("dead.toml", [1, 1], &[1]);
    let back = haproxy.deploy(&stage, &dead, "10s", &[]);
    assert_eq!(back.code, Some(1), "{back:?}");
    let why = format!("rolled back: backend {}:1: ", stage.backends.addresses[0]);
    assert!(back.stdout.contains(&why), "{back:?}");
    assert_eq!(haproxy.text(), good);

    let (sent, failures) = load.stop();
    println!("{sent} requests");
    assert_eq!(failures, Vec::<String>::new(), "of {sent} requests");
    stage.test_agrees_with_access_logs("haproxy", &even, [0.5, 0.5]);
}
