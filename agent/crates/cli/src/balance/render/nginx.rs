//! nginx, as distributed without a subscription, 1.18 or later.

use std::fmt::Write as _;

use notation::duration::text as time;

use super::super::intent::{
    Algorithm, Alpn, Backend, Intent, Mode, Setting, Sticky, Tls, TlsVersion,
};
use super::write::Writer;

pub(super) fn render(intent: &Intent, whole: bool, to: &mut Writer) {
    missing(intent, to);
    let context = match intent.mode {
        Mode::Http => "http {",
        Mode::Tcp => "stream {",
    };
    if !whole {
        to.line(format!("# Include this file in {context} }} of nginx.conf."));
        return part(intent, to);
    }
    to.line("worker_processes auto;");
    to.line("pid /run/nginx.pid;");
    to.line("error_log /var/log/nginx/error.log;");
    if intent.mode == Mode::Tcp {
        to.line("# Modules that a distribution packages apart, such as stream.");
        to.line("include /etc/nginx/modules-enabled/*.conf;");
    }
    to.line("");
    to.block("events {", "}", |to| to.line("worker_connections 4096;"));
    to.line("");
    to.block(context, "}", |to| {
        if intent.mode == Mode::Http {
            to.line("access_log /var/log/nginx/access.log;");
        }
        part(intent, to);
    });
}

fn part(intent: &Intent, to: &mut Writer) {
    let name = &intent.name;
    if intent.mode == Mode::Http {
        to.line("# WebSockets keep their connection, all other requests share kept ones.");
        to.block(&format!("map $http_upgrade ${}_connection {{", variable(name)), "}", |to| {
            to.line("default upgrade;");
            to.line("'' '';");
        });
    }
    to.line("");
    to.block(&format!("upstream {name} {{"), "}", |to| upstream(intent, to));
    to.line("");
    to.block("server {", "}", |to| match intent.mode {
        Mode::Http => http_server(intent, to),
        Mode::Tcp => stream_server(intent, to),
    });
}

fn upstream(intent: &Intent, to: &mut Writer) {
    to.line("# Workers share state, so that together they keep to the weights.");
    to.line(format!("zone {} 128k;", intent.name));
    to.why(intent, Setting::Algorithm);
    match (choice(intent), intent.mode) {
        (Algorithm::RoundRobin, _) => {}
        (Algorithm::LeastConnections, _) => to.line("least_conn;"),
        (Algorithm::HashSource, _) => to.line("hash $remote_addr consistent;"),
        (Algorithm::HashUri, _) => to.line("hash $request_uri consistent;"),
        (Algorithm::Random, _) => to.line("random;"),
    }
    to.why(intent, Setting::Backends);
    for backend in &intent.backends {
        server(intent, backend, to);
    }
    if intent.mode == Mode::Http {
        to.why(intent, Setting::Connections);
        to.line(format!("keepalive {};", intent.keep_alive.connections));
        to.why(intent, Setting::BackendIdle);
        to.line(format!("keepalive_timeout {};", time(intent.keep_alive.backend_idle)));
    }
}

/// Sticky by address is a hash of it.
fn choice(intent: &Intent) -> Algorithm {
    match intent.sticky {
        Some(Sticky::Source) => Algorithm::HashSource,
        Some(Sticky::Cookie(_)) | None => intent.algorithm,
    }
}

/// Whether nginx takes `backup` beside this algorithm.
fn has_backups(intent: &Intent) -> bool {
    matches!(choice(intent), Algorithm::RoundRobin | Algorithm::LeastConnections)
}

fn server(intent: &Intent, backend: &Backend, to: &mut Writer) {
    let Backend { address, weight, backup } = backend;
    let mut line = format!("server {address}");
    if *weight != 1 {
        let _ = write!(line, " weight={weight}");
    }
    let check = intent.passive_check;
    let _ = write!(line, " max_fails={} fail_timeout={}", check.failures, time(check.pause));
    if let Some(most) = intent.limits.connections {
        let _ = write!(line, " max_conns={most}");
    }
    if *backup {
        if !has_backups(intent) {
            return;
        }
        line += " backup";
    }
    to.line(line + ";");
}

fn http_server(intent: &Intent, to: &mut Writer) {
    let Intent { name, timeouts, tls, .. } = intent;
    to.line(listen(intent));
    if let Some(tls) = tls {
        certificate(tls, to);
    }
    if intent.proxy_protocol.accept {
        to.line(
            "# The client's address is that of the PROXY protocol; name the hosts that send it.",
        );
        to.line("set_real_ip_from 127.0.0.0/8;");
        to.line("real_ip_header proxy_protocol;");
    }
    to.why(intent, Setting::ClientIdle);
    to.line(format!("keepalive_timeout {};", time(intent.keep_alive.client_idle)));
    to.line("");
    to.block("location / {", "}", |to| {
        to.line(format!("proxy_pass http://{name};"));
        to.line("proxy_http_version 1.1;");
        to.line("proxy_set_header Upgrade $http_upgrade;");
        to.line(format!("proxy_set_header Connection ${}_connection;", variable(name)));
        to.line("proxy_set_header Host $host;");
        to.line("proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;");
        to.line("proxy_set_header X-Forwarded-Proto $scheme;");
        to.why(intent, Setting::Connect);
        to.line(format!("proxy_connect_timeout {};", time(timeouts.connect)));
        to.why(intent, Setting::Request);
        to.line(format!("proxy_read_timeout {};", time(timeouts.request)));
        to.line(format!("proxy_send_timeout {};", time(timeouts.request)));
        if intent.retries == 0 {
            to.line("proxy_next_upstream off;");
        } else {
            to.line("# Requests that change something (POST) are not sent twice.");
            to.line("proxy_next_upstream error timeout;");
            to.line(format!("proxy_next_upstream_tries {};", intent.retries + 1));
        }
    });
}

fn stream_server(intent: &Intent, to: &mut Writer) {
    let Intent { name, timeouts, tls, proxy_protocol, .. } = intent;
    to.line(listen(intent));
    if let Some(tls) = tls {
        certificate(tls, to);
    }
    to.line(format!("proxy_pass {name};"));
    to.why(intent, Setting::Connect);
    to.line(format!("proxy_connect_timeout {};", time(timeouts.connect)));
    to.why(intent, Setting::ClientIdle);
    to.line(format!("proxy_timeout {};", time(intent.keep_alive.client_idle)));
    if proxy_protocol.send {
        to.line("proxy_protocol on;");
    }
    if intent.retries == 0 {
        to.line("proxy_next_upstream off;");
    } else {
        to.line(format!("proxy_next_upstream_tries {};", intent.retries + 1));
    }
}

fn listen(intent: &Intent) -> String {
    let mut line = format!("listen {}", intent.listen);
    if let Some(tls) = &intent.tls {
        line += " ssl";
        if intent.mode == Mode::Http && tls.alpn.contains(&Alpn::H2) {
            line += " http2";
        }
    }
    if intent.proxy_protocol.accept {
        line += " proxy_protocol";
    }
    line + ";"
}

fn certificate(tls: &Tls, to: &mut Writer) {
    to.line(format!("ssl_certificate {};", tls.certificate));
    to.line(format!("ssl_certificate_key {};", tls.key));
    to.line(match tls.minimum {
        TlsVersion::V12 => "ssl_protocols TLSv1.2 TLSv1.3;",
        TlsVersion::V13 => "ssl_protocols TLSv1.3;",
    });
}

fn missing(intent: &Intent, to: &mut Writer) {
    if intent.health_check.is_some() {
        to.missing("health_check: nginx has no active checks without a subscription; failures of real traffic (passive_check) take a backend out");
    }
    if let Some(Sticky::Cookie(name)) = &intent.sticky {
        to.missing(format!(
            "sticky.cookie = \"{name}\": nginx sets no cookie of its own without a subscription; sticky.source = true keeps clients by address"
        ));
    }
    if intent.limits.pending.is_some() {
        to.missing("limits.pending: nginx queues no requests without a subscription; beyond limits.connections it answers 502");
    }
    if intent.mode == Mode::Http && intent.proxy_protocol.send {
        to.missing(
            "proxy_protocol.send: nginx sends it in mode tcp only; backends get X-Forwarded-For",
        );
    }
    if intent.mode == Mode::Tcp && intent.tls.as_ref().is_some_and(|tls| !tls.alpn.is_empty()) {
        to.missing("tls.alpn: nginx offers protocols in mode tcp from 1.21.4 on (ssl_alpn); leave it to the backends");
    }
    if let Some(tls) = &intent.tls
        && intent.mode == Mode::Http
        && !tls.alpn.contains(&Alpn::Http11)
    {
        to.missing("tls.alpn without http/1.1: nginx always takes HTTP/1.1, too");
    }
    let backups: Vec<String> = intent.backups().map(|backup| backup.address.to_string()).collect();
    if !backups.is_empty() && !has_backups(intent) {
        to.missing(format!(
            "backup {}: nginx knows backups with round_robin and least_connections only",
            super::write::listed(&backups)
        ));
    }
}

/// A name as part of a variable's.
fn variable(name: &str) -> String {
    name.replace('-', "_")
}
