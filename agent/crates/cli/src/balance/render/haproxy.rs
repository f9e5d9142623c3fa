//! HAProxy 2.4 or later.

use std::fmt::Write as _;

use notation::duration::text as time;

use super::super::intent::{
    Algorithm, Backend, HealthCheck, Intent, Mode, Setting, Sticky, TlsVersion,
};
use super::write::Writer;

pub(super) fn render(intent: &Intent, whole: bool, to: &mut Writer) {
    let Intent { name, timeouts, keep_alive, .. } = intent;
    missing(intent, to);
    if whole {
        to.line("# Start it as haproxy -W (systemd: -Ws): a reload then loses no connection.");
        to.block("global", "", |to| {
            to.line("maxconn 4096");
            to.line("stats socket /run/haproxy.sock mode 600 level admin expose-fd listeners");
        });
        to.line("");
    }
    to.block(&format!("defaults {name}"), "", |to| {
        to.line(match intent.mode {
            Mode::Http => "mode http",
            Mode::Tcp => "mode tcp",
        });
        to.why(intent, Setting::Connect);
        to.line(format!("timeout connect {}", time(timeouts.connect)));
        match intent.mode {
            Mode::Http => {
                to.why(intent, Setting::Request);
                to.line(format!("timeout server {}", time(timeouts.request)));
                to.line(format!("timeout client {}", time(timeouts.request)));
                to.why(intent, Setting::ClientIdle);
                to.line(format!("timeout http-keep-alive {}", time(keep_alive.client_idle)));
                to.line("timeout http-request 10s");
                to.line("timeout queue 5s");
                to.line("timeout tunnel 1h");
                to.line("option forwardfor");
            }
            Mode::Tcp => {
                to.why(intent, Setting::ClientIdle);
                to.line(format!("timeout server {}", time(keep_alive.client_idle)));
                to.line(format!("timeout client {}", time(keep_alive.client_idle)));
            }
        }
        to.line(format!("retries {}", intent.retries));
        if intent.retries > 0 {
            to.line("# At another backend at once. Requests that were sent are not sent twice.");
            to.line("option redispatch 1");
            if intent.mode == Mode::Http {
                to.line("retry-on conn-failure");
            }
        }
    });
    to.line("");
    to.block(&format!("frontend {name}-in"), "", |to| {
        to.line(bind(intent));
        to.line(format!("default_backend {name}"));
    });
    to.line("");
    to.block(&format!("backend {name}"), "", |to| backend(intent, to));
}

fn bind(intent: &Intent) -> String {
    let mut line = format!("bind {}", intent.listen);
    if intent.proxy_protocol.accept {
        line += " accept-proxy";
    }
    if let Some(tls) = &intent.tls {
        let minimum = match tls.minimum {
            TlsVersion::V12 => "TLSv1.2",
            TlsVersion::V13 => "TLSv1.3",
        };
        let _ = write!(line, " ssl crt {} ssl-min-ver {minimum}", tls.certificate);
        let offered: Vec<&str> = tls.alpn.iter().map(|alpn| alpn.as_str()).collect();
        if !offered.is_empty() {
            let _ = write!(line, " alpn {}", offered.join(","));
        }
    }
    line
}

fn backend(intent: &Intent, to: &mut Writer) {
    to.why(intent, Setting::Algorithm);
    let algorithm = match &intent.sticky {
        Some(Sticky::Source) => Algorithm::HashSource,
        Some(Sticky::Cookie(_)) | None => intent.algorithm,
    };
    match algorithm {
        Algorithm::RoundRobin => to.line("balance roundrobin"),
        Algorithm::LeastConnections => to.line("balance leastconn"),
        Algorithm::HashSource => to.line("balance source"),
        Algorithm::HashUri => to.line("balance uri"),
        Algorithm::Random => to.line("balance random(1)"),
    }
    if matches!(algorithm, Algorithm::HashSource | Algorithm::HashUri) {
        to.line("# A backend that goes takes few clients of the others with it.");
        to.line("hash-type consistent");
    }
    if let Some(Sticky::Cookie(cookie)) = &intent.sticky {
        to.line(format!("cookie {cookie} insert indirect nocache httponly"));
    }
    if let Some(HealthCheck { path: Some(path), .. }) = &intent.health_check {
        to.line("option httpchk");
        to.line(format!("http-check send meth GET uri {path}"));
    }
    let mut usual = String::from("default-server");
    if let Some(HealthCheck { interval, timeout, fall, rise, .. }) = &intent.health_check {
        let _ = write!(usual, " inter {} fall {fall} rise {rise}", time(*interval));
        to.line(format!("timeout check {}", time(*timeout)));
        let passive = intent.passive_check;
        // Without active checks nothing would bring such a backend back.
        let _ =
            write!(usual, " observe layer4 error-limit {} on-error mark-down", passive.failures);
    }
    if intent.mode == Mode::Http {
        let kept = intent.keep_alive;
        to.why(intent, Setting::Connections);
        to.why(intent, Setting::BackendIdle);
        let _ = write!(
            usual,
            " pool-max-conn {} pool-purge-delay {}",
            kept.connections,
            time(kept.backend_idle)
        );
    }
    if let Some(most) = intent.limits.connections {
        let _ = write!(usual, " maxconn {most}");
    }
    if let Some(most) = intent.limits.pending {
        let _ = write!(usual, " maxqueue {most}");
    }
    if intent.proxy_protocol.send {
        usual += " send-proxy-v2";
    }
    if usual != "default-server" {
        to.line(usual);
    }
    to.why(intent, Setting::Backends);
    for (i, backend) in intent.backends.iter().enumerate() {
        let Backend { address, weight, backup } = backend;
        let server = format!("b{}", i + 1);
        let mut line = format!("server {server} {address} weight {weight}");
        if intent.health_check.is_some() {
            line += " check";
        }
        if matches!(intent.sticky, Some(Sticky::Cookie(_))) {
            let _ = write!(line, " cookie {server}");
        }
        if *backup {
            line += " backup";
        }
        to.line(line);
    }
}

fn missing(intent: &Intent, to: &mut Writer) {
    if intent.health_check.is_none() {
        to.missing("passive_check: HAProxy takes a backend out by failed requests only beside active checks, which bring it back; set [health_check]. Until then a failed connect is retried at another backend");
    } else {
        to.missing("passive_check.pause: HAProxy brings a backend back when health_check succeeds again, not after a time");
    }
    if let Some(tls) = &intent.tls
        && tls.key != tls.certificate
        && tls.key != format!("{}.key", tls.certificate)
    {
        to.missing(format!(
            "tls.key = \"{}\": HAProxy reads the key from the certificate's file or from {}.key; put it there",
            tls.key, tls.certificate
        ));
    }
    if intent.limits.pending.is_some() && intent.limits.connections.is_none() {
        to.missing("limits.pending without limits.connections: without a limit nothing waits");
    }
}
