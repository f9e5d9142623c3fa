//! Every target, from the plainest intent and from one with everything.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::intent::{
    Algorithm, Alpn, Backend, HealthCheck, Limits, Mode, ProxyProtocol, Setting, Sticky, Tls,
    TlsVersion,
};
use super::super::spec::Spec;
use super::*;

const ALL: [Balancer; 5] =
    [Balancer::Nginx, Balancer::Haproxy, Balancer::Envoy, Balancer::Traefik, Balancer::Caddy];

fn plain() -> Intent {
    let backend = |address: &str, weight| Backend {
        address: address.parse().expect("an address"),
        weight,
        backup: false,
    };
    let backends = vec![backend("10.0.0.1:3000", 1), backend("10.0.0.2:3000", 1)];
    Intent::new("api".to_owned(), "0.0.0.0:8080".parse().expect("an address"), backends)
}

/// Everything that mode http has, with reasons and remarks.
fn full() -> Intent {
    let mut intent = plain();
    intent.backends[0].weight = 3;
    intent.backends.push(Backend {
        address: "api.internal:3000".parse().expect("a name"),
        weight: 1,
        backup: true,
    });
    intent.algorithm = Algorithm::LeastConnections;
    intent.health_check = Some(HealthCheck {
        path: Some("/healthz".to_owned()),
        interval: Duration::from_secs(5),
        timeout: Duration::from_millis(1500),
        fall: 3,
        rise: 2,
    });
    intent.retries = 2;
    intent.limits = Limits { connections: Some(100), pending: Some(50) };
    intent.tls = Some(Tls {
        certificate: "/etc/ssl/api.pem".to_owned(),
        key: "/etc/ssl/api.key".to_owned(),
        minimum: TlsVersion::V12,
        alpn: vec![Alpn::H2, Alpn::Http11],
    });
    intent.proxy_protocol = ProxyProtocol { accept: true, send: true };
    intent.sticky = Some(Sticky::Cookie("backend".to_owned()));
    for (setting, reason) in [
        (Setting::Algorithm, "why this algorithm"),
        (Setting::Backends, "why these backends"),
        (Setting::Connections, "why so many connections"),
        (Setting::BackendIdle, "why backends are idle for so long"),
        (Setting::ClientIdle, "why clients are idle for so long"),
        (Setting::Connect, "why a connect may take so long"),
        (Setting::Request, "why a request may take so long"),
    ] {
        intent.reasons.insert(setting, reason.to_owned());
    }
    intent.remarks.push("10.0.0.3:3000 is left out: 9 of 10 connects failed".to_owned());
    intent
}

/// Connections, by a hash of the client's address.
fn tcp() -> Intent {
    let mut intent = plain();
    intent.mode = Mode::Tcp;
    intent.backends[1].weight = 2;
    intent.algorithm = Algorithm::HashSource;
    intent.proxy_protocol.send = true;
    intent
}

fn golden(name: &str, text: &str) {
    let path: PathBuf =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/balance/render/golden").join(name);
    if std::env::var_os("PORTOLAN_BLESS").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder of golden files");
        fs::write(&path, text).expect("writing a golden file");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{}; PORTOLAN_BLESS=1 writes it anew", path.display());
}

#[test]
fn every_target_says_all_it_can_and_names_the_rest() {
    for (form, intent) in [("plain", plain()), ("full", full()), ("tcp", tcp())] {
        for balancer in ALL {
            let rendered = match render(&intent, balancer, false) {
                Ok(rendered) => rendered,
                Err(why) => {
                    assert_eq!((balancer, form), (Balancer::Caddy, "tcp"), "{why}");
                    continue;
                }
            };
            golden(&format!("{}-{form}", balancer.program()), &rendered.text);
            for missing in &rendered.missing {
                assert!(rendered.text.contains(missing), "{missing}");
            }
            assert_eq!(render(&intent, balancer, false), Ok(rendered), "deterministic");
        }
        golden(&format!("toml-{form}"), &spec(&intent).text);
    }
}

/// No value of the intent is lost: it is in the text, or named as missing.
#[test]
fn nothing_is_dropped_silently() {
    for balancer in ALL {
        let Rendered { text, .. } = render(&full(), balancer, true).expect("it balances HTTP");
        for wanted in [
            "10.0.0.1",
            "10.0.0.2",
            "3000",
            "api.internal",
            "/healthz",
            "/etc/ssl/api.pem",
            "/etc/ssl/api.key",
            "backend",
            "100",
            "why so many connections",
            "why backends are idle for so long",
            "why clients are idle for so long",
            "why a connect may take so long",
            "why a request may take so long",
            "why this algorithm",
            "why these backends",
            "9 of 10 connects failed",
        ] {
            let is_there = text.contains(wanted) || is_named_missing(wanted, &text);
            assert!(is_there, "{wanted:?} is not in {balancer:?}:\n{text}");
        }
    }
}

/// Whether the setting that a value or a reason belongs to is among those that cannot be configured
/// in the target.
fn is_named_missing(wanted: &str, text: &str) -> bool {
    match wanted {
        "/healthz" => text.contains("* health_check: "),
        "100" => text.contains("* limits: "),
        "why so many connections" => text.contains("keep_alive.connections"),
        "why clients are idle for so long" => text.contains("keep_alive.client_idle"),
        "why this algorithm" => text.contains("lb_policy cookie"),
        _ => false,
    }
}

#[test]
fn balance_toml_is_read_back_as_the_same_intent() {
    for mut intent in [plain(), full(), tcp()] {
        let read = Spec::parse("f", spec(&intent).text).expect("its own text");
        let name = read.name().expect("a name").expect("it is there");
        let listen = read.listen().expect("an address").expect("it is there");
        let mut again = Intent::new(name, listen, read.backends().expect("backends"));
        read.apply(&mut again).expect("it fits");
        intent.reasons.clear();
        intent.remarks.clear();
        assert_eq!(again, intent);
    }
}
