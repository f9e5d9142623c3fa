//! The endpoint under its web configuration file, and under hostile clients: the agent as users run
//! it, openssl and curl as clients.

mod clients;
mod keys;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use self::clients::{
    ASK, FLOOD, agent, cpu_time, curl, eventually, ready, s_client, said, sockets,
};
pub use self::keys::Keys;
use crate::agent::{Agent, binary, forget_our_variables};
use crate::facts::patience;
use crate::impostors::{Impostor, as_user};
use crate::namespace::Pair;
use crate::net;

#[test]
fn at_the_unix_socket_only_other_users_of_the_host_read_nothing() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = agent(&[("web.listen_address", "unix")]);
    let socket = agent.run_directory().join("control.sock");
    let portolan = |arguments: &str| {
        let mut command = Command::new(binary());
        forget_our_variables(&mut command);
        command.args(arguments.split(' ')).env("PORTOLAN_SOCKET", &socket);
        command.output().expect("the agent's own binary runs")
    };
    eventually(true, || portolan("status").status.success());
    let listener = pair.server.listen("0.0.0.0:0");
    let client = pair.client.connect((pair.server.v4, net::port(&listener))).unwrap();
    let served = net::accept(&listener);
    // The commands need no port.
    eventually(true, || said(&portolan("edges")).contains(&pair.client.service));
    for command in ["services", "ports", "map", "balance", "ports free"] {
        let output = portolan(command);
        assert!(output.status.success(), "{command}: {}", said(&output));
    }
    let log = agent.log();
    assert!(log.contains(&format!("listening on {} only", socket.display())), "{log}");
    // No socket of the agent listens on a port.
    let ours = sockets(agent.pid());
    assert!(!ours.is_empty());
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let table = fs::read_to_string(table).unwrap_or_default();
        let inodes = table.lines().filter_map(|line| line.split_whitespace().nth(9));
        let found: Vec<_> = inodes.filter(|inode| ours.iter().any(|own| own == inode)).collect();
        assert_eq!(found, Vec::<&str>::new(), "{table}");
    }
    // Root reads metrics there, another user does not, wherever the directory lets them.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(agent.run_directory(), mode).unwrap();
    let ask = |mut command: Command| {
        command.args(["/usr/bin/python3", "-c", ASK]).arg(&socket);
        said(&command.output().expect("starting python3")).trim().to_owned()
    };
    assert_eq!(ask(Command::new("env")), "HTTP/1.0 200");
    assert_eq!(ask(as_user()), "Permission denied");
    drop((client, served));
    agent.stop();
}

#[test]
fn a_flood_of_connections_of_a_user_cuts_no_scrape() {
    needs_kernel!();
    let agent = agent(&[]);
    eventually(200, || curl(&agent, "http", "/-/ready", &[]));
    let mut command = as_user();
    command.args(["/usr/bin/python3", "-c", FLOOD, &agent.address.port().to_string()]);
    let flood = Impostor::start(command).expect("a user who floods");
    for attempt in 0..50 {
        let scraped = agent.get("/metrics").map(|(status, body)| {
            (status, body.contains("portolan_build_info"), body.ends_with('\n'))
        });
        assert_eq!(scraped.ok(), Some((200, true, true)), "scrape {attempt}");
    }
    drop(flood);
    agent.stop();
}

#[test]
fn tls_begins_at_1_2_and_a_renewed_certificate_is_taken_up() {
    needs_kernel!();
    let keys = Keys::new();
    let file =
        keys.configure("tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n");
    let agent = agent(&[("web.config_file", &file)]);
    let ca = keys.text("ca.pem");
    ready(&agent, &ca);
    assert_eq!(curl(&agent, "https", "/metrics", &["--cacert", &ca]), 200);
    assert_eq!(curl(&agent, "http", "/metrics", &[]), 0, "plain HTTP is not answered");
    for (version, works) in [("-tls1_3", true), ("-tls1_2", true), ("-tls1_1", false)] {
        let seclevel = ["-cipher", "ALL:@SECLEVEL=0"];
        let text = s_client(&agent, &[&[version][..], &seclevel[..]].concat());
        assert_eq!(
            text.contains("Cipher is") && !text.contains("Cipher is (NONE)"),
            works,
            "{version}: {text}"
        );
    }
    let serial = |agent: &Agent| {
        let text = s_client(agent, &["-showcerts"]);
        let first = text.split("-----BEGIN").nth(1)?;
        first.split("-----END").next().map(str::to_owned)
    };
    let before = serial(&agent);
    keys.issue("server", "DNS:localhost,IP:127.0.0.1");
    eventually(true, || serial(&agent) != before);
    // A mistake leaves the previous configuration in force, and is logged.
    let good = serial(&agent);
    fs::write(keys.path("server.pem"), "no certificate\n").unwrap();
    eventually(true, || {
        let _ = serial(&agent);
        agent.log().contains("stays in force")
    });
    assert_eq!(serial(&agent), good);
    agent.stop();
}

#[test]
fn only_the_curves_and_suites_of_the_file_are_offered() {
    needs_kernel!();
    let keys = Keys::new();
    let file = keys.configure(
        "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n  \
         curve_preferences: [CurveP521]\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, \
         TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA]\n",
    );
    let agent = agent(&[("web.config_file", &file)]);
    let connects = |arguments: &[&str]| {
        let text = s_client(&agent, arguments);
        text.contains("Cipher is") && !text.contains("Cipher is (NONE)")
    };
    eventually(true, || connects(&["-groups", "P-521"]));
    for (arguments, works) in [
        // In TLS 1.2 openssl also counts the curve of the certificate, P-256.
        (&["-groups", "P-521:P-256", "-tls1_2"][..], true),
        (&["-groups", "P-256"], false),
        (&["-groups", "X25519:P-256", "-tls1_2"], false),
        (&["-groups", "P-521:P-256", "-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"], false),
        (&["-groups", "P-521:P-256", "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"], false),
    ] {
        assert_eq!(connects(arguments), works, "{arguments:?}");
    }
    agent.stop();
}

#[test]
fn only_clients_with_the_right_certificate_are_let_in() {
    needs_kernel!();
    let keys = Keys::new();
    let file = keys.configure(
        "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n  \
         client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n  \
         client_allowed_sans: [scraper.example]\n",
    );
    let agent = agent(&[("web.config_file", &file)]);
    let ca = keys.text("ca.pem");
    let with = |name: &str| {
        let (cert, key) = (keys.text(&format!("{name}.pem")), keys.text(&format!("{name}.key")));
        curl(&agent, "https", "/metrics", &["--cacert", &ca, "--cert", &cert, "--key", &key])
    };
    eventually(200, || with("scraper"));
    assert_eq!(with("outsider"), 0);
    assert_eq!(curl(&agent, "https", "/metrics", &["--cacert", &ca]), 0);
    agent.stop();
}

#[test]
fn passwords_are_asked_for_and_never_written_down() {
    needs_kernel!();
    let keys = Keys::new();
    let hash = bcrypt::hash("secret", 4).unwrap();
    let file = keys.configure(&format!("basic_auth_users:\n  scraper: {hash}\n"));
    let agent = agent(&[("web.config_file", &file), ("log.level", "trace")]);
    eventually(200, || curl(&agent, "http", "/-/ready", &[]));
    assert_eq!(curl(&agent, "http", "/metrics", &[]), 401);
    assert_eq!(curl(&agent, "http", "/metrics", &["-u", "scraper:wrong"]), 401);
    assert_eq!(curl(&agent, "http", "/metrics", &["-u", "nobody:secret"]), 401);
    assert_eq!(curl(&agent, "http", "/metrics", &["-u", "scraper:secret"]), 200);
    assert_eq!(curl(&agent, "http", "/api/v1/status", &["-u", "scraper:secret"]), 200);
    // Everyone can read the file with the hashes: in the status, and in the log once.
    let url = format!("http://{}/api/v1/status", agent.address);
    let output = Command::new("curl").args(["-s", "-u", "scraper:secret", &url]).output();
    let status: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let codes = status["findings"].as_array().unwrap().iter().map(|finding| &finding["code"]);
    assert_eq!(codes.filter(|code| **code == "PS422").count(), 1, "{status}");
    assert_eq!(agent.log().matches("every user of this host can read").count(), 1);
    // Changed while it runs.
    let other = bcrypt::hash("other", 4).unwrap();
    keys.configure(&format!("basic_auth_users:\n  scraper: {other}\n"));
    eventually(401, || curl(&agent, "http", "/metrics", &["-u", "scraper:secret"]));
    assert_eq!(curl(&agent, "http", "/metrics", &["-u", "scraper:other"]), 200);
    let log = agent.log();
    assert!(!log.contains(&hash) && !log.contains(&other) && !log.contains("c2NyYXBlcj"), "{log}");
    agent.stop();
}

#[test]
fn a_web_configuration_with_a_mistake_is_refused_with_the_place() {
    needs_kernel!();
    let keys = Keys::new();
    let check = |text: &str, words: &[&str]| {
        let file = keys.configure(text);
        let listen = format!("127.0.0.1:{}", crate::agent::free_port());
        let run = keys.text("run");
        let settings = [
            ("web.config_file", file.as_str()),
            ("web.listen_address", &listen),
            ("run_directory", &run),
        ];
        let ended = crate::agent::run_to_end(&mut crate::agent::command(&settings));
        assert!(!ended.status.success());
        for word in words {
            assert!(ended.stderr.contains(word), "nothing of {word:?} in: {}", ended.stderr);
        }
    };
    check("tls_server_config:\n  cert_fil: a\n", &["web.yml", "cert_fil"]);
    check("tls_server_config:\n  cert_file: a.pem\n", &["web.yml", "key_file is missing"]);
    check("tls_server_config:\n  cert_file: none.pem\n  key_file: server.key\n", &["none.pem"]);
    check(
        "tls_server_config:\n  cert_file: server.pem\n  key_file: scraper.key\n",
        &["belong together"],
    );
    check(
        "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n  min_version: TLS10\n",
        &["TLS12"],
    );
    check("basic_auth_users:\n  a: secret\n", &["bcrypt", "htpasswd"]);
    check("http_server_config:\n  headers: {Server: x}\n", &["Server", "X-Frame-Options"]);
    check("http_server_config:\n  headers: {X-Frame-Options: x}\n", &["deny or sameorigin"]);
    check("rate_limit: {interval: soon, burst: 1}\n", &["web.yml", "like 1s"]);
}

/// What a browser sends for a page whose name was made to resolve to this host.
#[test]
fn a_page_of_another_site_reads_nothing_by_dns_rebinding() {
    needs_kernel!();
    let agent = agent(&[("web.allowed_hosts", "portolan.example, *.svc")]);
    let status = |host: &str, path: &str| curl(&agent, "http", path, &["-H", host]);
    eventually(200, || curl(&agent, "http", "/-/ready", &[]));
    let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let own = format!("Host: {}:{}", own.trim(), agent.address.port());
    for host in
        ["Host: 127.0.0.1", "Host: [::1]:1", "Host: portolan.example:80", "Host: a.svc", &own]
    {
        assert_eq!(status(host, "/metrics"), 200, "{host}");
    }
    for path in ["/metrics", "/api/v1/status", "/", "/healthz", "/none"] {
        assert_eq!(status("Host: evil.example", path), 421, "{path}");
        assert_eq!(status("Host:", path), 400, "{path}: without a Host header");
    }
    let said = |text: &str| {
        let mut stream = TcpStream::connect(agent.address).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = said("GET /metrics HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    assert!(answer.contains("add the name to web.allowed_hosts"), "{answer}");
    let answer = said(
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: a.svc\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    agent.stop();
}

#[test]
fn a_guesser_is_answered_429_and_the_scraper_is_not() {
    needs_kernel!();
    let keys = Keys::new();
    let hash = bcrypt::hash("secret", 10).unwrap();
    let file = keys.configure(&format!("basic_auth_users:\n  scraper: {hash}\n"));
    let agent = agent(&[("web.config_file", &file)]);
    eventually(200, || curl(&agent, "http", "/-/ready", &[]));
    let ask = |user: &str| curl(&agent, "http", "/metrics", &["-u", user]);
    assert_eq!(ask("scraper:secret"), 200);
    let before = cpu_time(&agent);
    let began = Instant::now();
    let guesses: Vec<u16> = (0..40).map(|n| ask(&format!("scraper:{n}"))).collect();
    assert_eq!(guesses[..4], [401; 4]);
    assert!(guesses.iter().filter(|status| **status == 429).count() > 20, "{guesses:?}");
    let (spent, took) = (cpu_time(&agent).saturating_sub(before), began.elapsed());
    assert!(spent < took / 2 + Duration::from_millis(200), "{spent:?} of {took:?}");
    assert_eq!(ask("scraper:secret"), 200, "the pause is not for a verified password");
    // The pause may have ended on a busy machine; then a wrong name begins the next.
    assert!((0..3).any(|_| ask("nobody:secret") == 429), "the same answer for every name");
    agent.stop();
}

/// A thousand clients that never finish their request, and some that send too much.
#[test]
fn slow_and_greedy_clients_do_not_keep_a_scraper_out() {
    needs_kernel!();
    let agent = Agent::start();
    let resident = |agent: &Agent| {
        let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let before = resident(&agent);
    let mut slow = Vec::new();
    for number in 0..1000 {
        let mut stream = TcpStream::connect(agent.address).expect("the listen queue has room");
        // Every other one sends something; none sends a whole request.
        if number % 2 == 0 {
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ");
        }
        slow.push(stream);
        if number % 100 == 99 {
            let began = Instant::now();
            agent.scrape();
            assert!(began.elapsed() < patience(Duration::from_secs(2)), "{:?}", began.elapsed());
        }
    }
    let open = fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count();
    assert!(open < 300, "{open} descriptors");
    assert!(resident(&agent) < before + 16 * 1024, "{before} KiB before");
    drop(slow);

    let mut greedy = TcpStream::connect(agent.address).unwrap();
    greedy.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let header = format!(
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n",
        "a".repeat(64 * 1024)
    );
    // It may close before everything is written.
    let _ = greedy.write_all(header.as_bytes());
    let mut answer = String::new();
    let _ = greedy.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        assert_eq!(curl(&agent, "http", "/metrics", &["-X", method]), 405, "{method}");
    }
    agent.stop();
}

/// Responses that are not read.
#[test]
fn clients_that_do_not_read_do_not_keep_a_scraper_out() {
    needs_kernel!();
    let agent = Agent::start();
    let mut deaf = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(agent.address).unwrap();
        for _ in 0..20 {
            let _ = stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n");
        }
        deaf.push(stream);
    }
    for _ in 0..5 {
        agent.scrape();
    }
    drop(deaf);
    agent.stop();
}

#[test]
fn every_answer_has_the_security_headers() {
    needs_kernel!();
    let keys = Keys::new();
    let file = keys.configure("http_server_config:\n  headers:\n    X-Frame-Options: sameorigin\n    Strict-Transport-Security: max-age=60\n");
    let agent = Agent::with(&[("web.config_file", &file)]);
    let url = format!("http://{}/metrics", agent.address);
    let output = Command::new("curl").args(["-s", "-D", "-", "-o", "/dev/null", &url]).output();
    let headers = said(&output.unwrap()).to_lowercase();
    for wanted in [
        "content-security-policy: default-src 'none'",
        "x-content-type-options: nosniff",
        "x-frame-options: sameorigin",
        "strict-transport-security: max-age=60",
    ] {
        assert!(headers.contains(wanted), "no {wanted} in {headers}");
    }
    agent.stop();
}
