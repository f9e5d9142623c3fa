//! nginx: a part of its configuration is deployed; a signal reloads it.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::load::Load;
use super::{Ended, PATIENT, Stage};
use crate::balance::nginx_head;
use crate::exactness::{Server, missing};

/// nginx as a balancer, with a directory of parts.
struct Nginx {
    to: String,
    main: String,
    reload: String,
    _server: Server,
}

impl Nginx {
    /// Starts it with the part that `generate` writes.
    fn start(stage: &Stage, spec: &Path) -> Self {
        fs::create_dir(stage.path("conf.d")).expect("a directory");
        let spec = spec.display().to_string();
        let generated = stage.run(&["generate", "--spec", &spec, "--for", "nginx"]);
        assert_eq!((generated.code, generated.stderr.as_str()), (Some(0), ""), "{generated:?}");
        let to = stage.write("conf.d/api.conf", &generated.stdout);
        // Its head ends within http {}.
        let head = nginx_head(&stage.directory).replace("worker_processes 1", "worker_processes 2");
        let main = stage.write("main.conf", &format!("{head} include conf.d/*.conf; }}\n"));
        let mut command = stage.pair.client.command("nginx");
        command.arg("-c").arg(&main).arg("-e").arg(stage.path("error"));
        let server = Server::start(&mut command, &stage.pair.client, stage.port, libc::SIGQUIT);
        Self {
            to: to.display().to_string(),
            main: main.display().to_string(),
            reload: format!("signal:{}", stage.path("pid").display()),
            _server: server,
        }
    }

    fn arguments<'a>(&'a self, spec: &'a str, window: &'a str) -> Vec<&'a str> {
        let Self { to, main, reload, .. } = self;
        let deploy = ["deploy", "--for", "nginx", "--window", window];
        let files = ["--spec", spec, "--to", to, "--main", main, "--reload", reload];
        [&deploy[..], &files, PATIENT].concat()
    }

    fn deploy(&self, stage: &Stage, spec: &Path, window: &str, more: &[&str]) -> Ended {
        let spec = spec.display().to_string();
        let mut arguments = self.arguments(&spec, window);
        arguments.extend(more);
        stage.run(&arguments)
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.to).expect("the deployed file")
    }

    fn is_valid(&self, stage: &Stage) -> bool {
        let mut command: Command = stage.pair.client.command("nginx");
        command.args(["-t", "-q", "-c", &self.main]);
        command.status().expect("starting nginx").success()
    }
}

#[test]
fn nginx_is_reloaded_under_load_without_a_failed_request_and_rolled_back_when_it_does_harm() {
    needs_kernel!();
    if let Some(why) = missing(&["nginx"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let stage = Stage::new();
    let uneven = stage.spec("uneven.toml", [3, 1], &[]);
    let nginx = Nginx::start(&stage, &uneven);
    let load = Load::start(&stage);

    let even = stage.spec("even.toml", [1, 1], &[]);
    let before = nginx.text();
    let tried = nginx.deploy(&stage, &even, "1s", &["--dry-run"]);
    assert_eq!(tried.code, Some(0), "{tried:?}");
    assert!(tried.stdout.contains("weight=3") && nginx.text() == before, "{tried:?}");
    let done = nginx.deploy(&stage, &even, "1s", &[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("new workers") && done.stdout.ends_with("deployed\n"), "{done:?}");
    let good = nginx.text();
    assert_ne!(good, before);

    // A configuration that nginx refuses is never in place.
    let broken = stage.write("broken.conf", &good.replace("upstream api", "upstraem api"));
    let refused = nginx.deploy(&stage, &even, "1s", &["--file", &broken.display().to_string()]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("unknown directive \"upstraem\""), "{refused:?}");
    assert_eq!(nginx.text(), good);

    // One with a backend that refuses is, until the agent has seen it.
    let dead = stage.spec("dead.toml", [1, 1], &[1]);
    let back = nginx.deploy(&stage, &dead, "10s", &[]);
    assert_eq!(back.code, Some(1), "{back:?}");
    let why = format!("rolled back: backend {}:1: ", stage.backends.addresses[0]);
    assert!(back.stdout.contains(&why) && back.stdout.contains("connects failed"), "{back:?}");
    assert_eq!(nginx.text(), good);

    let (sent, failures) = load.stop();
    println!("{sent} requests");
    assert_eq!(failures, Vec::<String>::new(), "of {sent} requests");
    stage.test_agrees_with_access_logs("nginx", &even, [0.5, 0.5]);
}

#[test]
fn a_deployment_that_is_killed_leaves_a_valid_file_and_the_next_one_finishes_it() {
    needs_kernel!();
    if let Some(why) = missing(&["nginx"]) {
        println!("SKIPPED: {why}");
        return;
    }
    let stage = Stage::new();
    let first = stage.spec("first.toml", [3, 1], &[]);
    let nginx = Nginx::start(&stage, &first);
    let old = nginx.text();
    // One version more with each step; a command that is killed may have gone on for a moment.
    let mut versions = vec![old.clone()];
    for (step, weight) in
        ["valid", "backed up", "swapped", "reloaded", "watching"].into_iter().zip(4..)
    {
        let spec = stage.spec("next.toml", [weight, 1], &[]).display().to_string();
        let generated = stage.run(&["generate", "--spec", &spec, "--for", "nginx"]);
        versions.push(generated.stdout);
        stage.kill_after(&nginx.arguments(&spec, "10s"), step);
        let now = nginx.text();
        assert!(versions.contains(&now), "after {step}:\n{now}");
        assert!(nginx.is_valid(&stage), "after {step}");
    }
    assert_eq!(nginx.text(), versions.pop().unwrap_or_default(), "it was swapped in at the end");
    // What was never confirmed is not what a rollback returns to.
    let (to, reload) = (nginx.to.as_str(), nginx.reload.as_str());
    let back = stage.run(&["rollback", "--for", "nginx", "--to", to, "--reload", reload]);
    assert_eq!(back.code, Some(0), "{back:?}");
    assert_eq!(nginx.text(), old);
    let next = stage.spec("next.toml", [9, 1], &[]);
    let done = nginx.deploy(&stage, &next, "1s", &[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("no traffic passed"), "{done:?}");
    let again = nginx.deploy(&stage, &next, "1s", &[]);
    assert!(again.stdout.ends_with("unchanged\n"), "{again:?}");
}
