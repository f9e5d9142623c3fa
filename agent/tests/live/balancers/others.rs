//! Envoy, Traefik and Caddy, where they are installed: in PATH, or in `target/balancers`, where
//! `cargo xtask test balancers` puts them; runs of all tests, as in CI, do not fetch them.

use std::fs;
use std::path::PathBuf;

use super::Stage;
use super::load::Load;
use crate::exactness::{Server, missing};

/// The program; a test without it is skipped.
fn program(name: &str) -> Option<String> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/balancers/bin").join(name);
    if here.is_file() {
        return Some(here.display().to_string());
    }
    match missing(&[name, "nginx"]) {
        None => Some(name.to_owned()),
        Some(why) => {
            println!("SKIPPED: {why}; `cargo xtask test balancers` installs it");
            None
        }
    }
}

#[test]
fn caddy_is_reloaded_at_its_admin_api_under_load() {
    needs_kernel!();
    let Some(caddy) = program("caddy") else { return };
    let stage = Stage::new();
    let even = stage.spec("even.toml", [1, 1], &[]);
    let uneven = stage.spec("uneven.toml", [3, 1], &[]);
    let spec = uneven.display().to_string();
    let generated = stage.run(&["generate", "--spec", &spec, "--for", "caddy"]);
    let to = stage.write("Caddyfile", &generated.stdout);
    let mut command = stage.pair.client.command(&caddy);
    command.env("HOME", stage.directory.path());
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&to);
    let _server = Server::start(&mut command, &stage.pair.client, stage.port, libc::SIGTERM);
    let load = Load::start(&stage);
    let (to, spec) = (to.display().to_string(), even.display().to_string());
    let deploy = |spec: &str, more: &[&str]| {
        let mut arguments = vec!["deploy", "--for", "caddy", "--spec", spec, "--to", &to];
        arguments.extend(["--program", &caddy, "--window", "2s"]);
        arguments.extend(more);
        stage.run(&arguments)
    };
    let done = deploy(&spec, &[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let good = fs::read_to_string(&to).expect("the deployed file");
    let broken = stage.write("broken", &good.replace("lb_policy", "lb_polizei"));
    let refused = deploy(&spec, &["--file", &broken.display().to_string()]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("Caddy refuses the configuration"), "{refused:?}");
    assert_eq!(fs::read_to_string(&to).expect("the deployed file"), good);
    let (sent, failures) = load.stop();
    assert_eq!(failures, Vec::<String>::new(), "of {sent} requests");
    stage.test_agrees_with_access_logs("caddy", &even, [0.5, 0.5]);
}

#[test]
fn traefik_takes_a_file_that_a_second_one_has_judged() {
    needs_kernel!();
    let Some(traefik) = program("traefik") else { return };
    let stage = Stage::new();
    let even = stage.spec("even.toml", [1, 1], &[]);
    let uneven = stage.spec("uneven.toml", [3, 1], &[]);
    let spec = uneven.display().to_string();
    let generated = stage.run(&["generate", "--spec", &spec, "--for", "traefik"]);
    fs::create_dir(stage.path("dynamic")).expect("a directory");
    let to = stage.write("dynamic/api.yaml", &generated.stdout);
    let mut command = stage.pair.client.command(&traefik);
    let listen = format!("--entryPoints.api.address={}:{}", stage.pair.client.v4, stage.port);
    command.arg(format!("--providers.file.directory={}", stage.path("dynamic").display()));
    command.arg(listen).args(["--global.checkNewVersion=false", "--providers.file.watch=true"]);
    let _server = Server::start(&mut command, &stage.pair.client, stage.port, libc::SIGTERM);
    let load = Load::start(&stage);
    let (to, spec) = (to.display().to_string(), even.display().to_string());
    let deploy = |more: &[&str]| {
        let mut arguments = vec!["deploy", "--for", "traefik", "--spec", &spec, "--to", &to];
        arguments.extend(["--program", &traefik, "--window", "4s"]);
        arguments.extend(more);
        stage.run(&arguments)
    };
    let good = fs::read_to_string(&to).expect("the deployed file");
    let broken = stage.write("broken", &good.replace("service: api", "service: apu"));
    let refused = deploy(&["--file", &broken.display().to_string()]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("Traefik refuses the configuration"), "{refused:?}");
    assert_eq!(fs::read_to_string(&to).expect("the deployed file"), good);
    let done = deploy(&[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let (sent, failures) = load.stop();
    assert_eq!(failures, Vec::<String>::new(), "of {sent} requests");
    stage.test_agrees_with_access_logs("traefik", &even, [0.5, 0.5]);
}

#[test]
fn envoy_serves_what_was_generated_and_judges_what_is_deployed() {
    needs_kernel!();
    let Some(envoy) = program("envoy") else { return };
    let stage = Stage::new();
    let uneven = stage.spec("uneven.toml", [3, 1], &[]);
    let spec = uneven.display().to_string();
    let generated = stage.run(&["generate", "--spec", &spec, "--for", "envoy"]);
    let to = stage.write("api.yaml", &generated.stdout);
    let mut command = stage.pair.client.command(&envoy);
    command.args(["--log-level", "error", "--concurrency", "1", "--disable-hot-restart", "-c"]);
    let _server = Server::start(command.arg(&to), &stage.pair.client, stage.port, libc::SIGTERM);
    stage.test_agrees_with_access_logs("envoy", &uneven, [0.75, 0.25]);
    let to = to.display().to_string();
    let broken = stage.write("broken", &generated.stdout.replace("ROUND_ROBIN", "ROUND_ROBBIN"));
    let broken = broken.display().to_string();
    let mut arguments = vec!["deploy", "--for", "envoy", "--spec", &spec, "--to", &to];
    arguments.extend(["--program", &envoy, "--reload", "none", "--file", &broken]);
    let refused = stage.run(&arguments);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("Envoy refuses the configuration"), "{refused:?}");
    assert_eq!(fs::read_to_string(&to).expect("the deployed file"), generated.stdout);
}
