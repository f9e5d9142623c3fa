//! Envoy, Traefik and Caddy, which no distribution has: `cargo xtask test --full balancers` installs
//! them and runs these tests; without it they are skipped.

use std::env;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::load::{Load, SENDERS, answers};
use super::{Ended, PATIENT, Stage};
use crate::exactness::{Server, missing};
use crate::facts::patience;

/// The folder of their programs.
const FOLDER: &str = "PORTOLAN_BALANCERS";
/// Envoy asks for endpoints every half second.
const SOON: Duration = Duration::from_secs(10);

/// The program; a test without it is skipped.
fn program(name: &str) -> Option<String> {
    let Some(folder) = env::var_os(FOLDER) else {
        println!("SKIPPED: {name} is tested by `cargo xtask test --full balancers`");
        return None;
    };
    if let Some(why) = missing(&["nginx"]) {
        println!("SKIPPED: {why}");
        return None;
    }
    let path = Path::new(&folder).join(name);
    assert!(path.is_file(), "{FOLDER} has no {}", path.display());
    Some(path.display().to_string())
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
        arguments.extend(PATIENT);
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
    // Caddy opens its port once more and closes the old socket: connections that are about to be
    // accepted there at that moment are reset or closed, by Caddy itself. There was one reload.
    assert!(failures.len() <= SENDERS, "of {sent} requests: {failures:?}");
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
    answers(&stage);
    let load = Load::start(&stage);
    let (to, spec) = (to.display().to_string(), even.display().to_string());
    let deploy = |more: &[&str]| {
        let mut arguments = vec!["deploy", "--for", "traefik", "--spec", &spec, "--to", &to];
        arguments.extend(["--program", &traefik, "--window", "4s"]);
        arguments.extend(PATIENT);
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

/// Envoy with one cluster, whose endpoints the agent gives (REST), at its Unix socket.
fn by_eds(stage: &Stage) -> String {
    format!(
        r#"node: {{id: test, cluster: test}}
static_resources:
  listeners:
  - name: front
    address: {{socket_address: {{address: "{address}", port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: found}}}}]}}
  clusters:
  - name: found
    type: EDS
    connect_timeout: 1s
    eds_cluster_config:
      service_name: eds-api
      eds_config:
        resource_api_version: V3
        api_config_source:
          api_type: REST
          transport_api_version: V3
          cluster_names: [portolan]
          refresh_delay: 0.5s
  - name: portolan
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: portolan
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{pipe: {{path: "{socket}"}}}}}}}}]}}]
"#,
        address = stage.pair.client.v4,
        port = stage.port,
        socket = stage.agent.run_directory().join("control.sock").display(),
    )
}

#[test]
fn envoy_takes_endpoints_from_the_agent_and_follows_when_they_change() {
    needs_kernel!();
    let Some(envoy) = program("envoy") else { return };
    let stage = Stage::new();
    let register = |count: usize| {
        let addresses = stage.backends.addresses.iter().take(count);
        let addresses = addresses.map(|address| format!("{address}:{}", stage.backends.port));
        let addresses = addresses.collect::<Vec<_>>().join(",");
        let register = ["services", "register", "eds-api", "--address", &addresses];
        let ended = Ended::of(&mut stage.portolan(&register));
        assert_eq!(ended.code, Some(0), "{ended:?}");
    };
    register(1);
    let file = stage.write("eds.yaml", &by_eds(&stage));
    let mut command = stage.pair.client.command(&envoy);
    command.args(["--log-level", "error", "--concurrency", "1", "--disable-hot-restart", "-c"]);
    let _server = Server::start(command.arg(&file), &stage.pair.client, stage.port, libc::SIGTERM);
    // Envoy listens when it has the first endpoints.
    let load = Load::start(&stage);
    let served = |backends: [bool; 2]| {
        let (began, before) = (Instant::now(), stage.backends.requests());
        loop {
            let now = stage.backends.requests();
            if [now[0] > before[0], now[1] > before[1]] == backends {
                return;
            }
            assert!(began.elapsed() < patience(SOON), "{backends:?}, not {now:?}");
            thread::sleep(Duration::from_millis(50));
        }
    };
    served([true, false]);
    register(2);
    served([true, true]);
    let (sent, failures) = load.stop();
    assert_eq!(failures, Vec::<String>::new(), "of {sent} requests");
}
