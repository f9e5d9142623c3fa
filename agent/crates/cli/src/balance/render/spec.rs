//! `balance.toml` itself: what was observed, as a file to edit and to keep.

use notation::duration::text as time;

use super::super::intent::{
    Backend, HealthCheck, Intent, Mode, ProxyProtocol, Setting, Sticky, Tls, TlsVersion,
};
use super::write::Writer;

pub(super) fn render(intent: &Intent, to: &mut Writer) {
    to.line(format!("name = \"{}\"", intent.name));
    to.line(format!("listen = \"{}\"", intent.listen));
    to.line(match intent.mode {
        Mode::Http => "mode = \"http\"",
        Mode::Tcp => "mode = \"tcp\"",
    });
    to.why(intent, Setting::Algorithm);
    to.line(format!("algorithm = \"{}\"", intent.algorithm.as_str()));
    to.line(format!("retries = {}", intent.retries));
    to.line("");
    to.why(intent, Setting::Backends);
    for Backend { address, weight, backup } in &intent.backends {
        to.line("[[backends]]");
        to.line(format!("address = \"{address}\""));
        to.line(format!("weight = {weight}"));
        if *backup {
            to.line("backup = true");
        }
        to.line("");
    }
    if let Some(HealthCheck { path, interval, timeout, fall, rise }) = &intent.health_check {
        to.line("[health_check]");
        if let Some(path) = path {
            to.line(format!("path = \"{path}\""));
        }
        to.line(format!("interval = \"{}\"", time(*interval)));
        to.line(format!("timeout = \"{}\"", time(*timeout)));
        to.line(format!("fall = {fall}"));
        to.line(format!("rise = {rise}"));
        to.line("");
    }
    to.line("[passive_check]");
    to.line(format!("failures = {}", intent.passive_check.failures));
    to.line(format!("pause = \"{}\"", time(intent.passive_check.pause)));
    to.line("");
    to.line("[keep_alive]");
    to.why(intent, Setting::Connections);
    to.line(format!("connections = {}", intent.keep_alive.connections));
    to.why(intent, Setting::BackendIdle);
    to.line(format!("backend_idle = \"{}\"", time(intent.keep_alive.backend_idle)));
    to.why(intent, Setting::ClientIdle);
    to.line(format!("client_idle = \"{}\"", time(intent.keep_alive.client_idle)));
    to.line("");
    to.line("[timeouts]");
    to.why(intent, Setting::Connect);
    to.line(format!("connect = \"{}\"", time(intent.timeouts.connect)));
    to.why(intent, Setting::Request);
    to.line(format!("request = \"{}\"", time(intent.timeouts.request)));
    let limits = intent.limits;
    if limits.connections.is_some() || limits.pending.is_some() {
        to.line("");
        to.line("[limits]");
        for (key, limit) in [("connections", limits.connections), ("pending", limits.pending)] {
            if let Some(limit) = limit {
                to.line(format!("{key} = {limit}"));
            }
        }
    }
    if let Some(Tls { certificate, key, minimum, alpn }) = &intent.tls {
        to.line("");
        to.line("[tls]");
        to.line(format!("certificate = \"{certificate}\""));
        to.line(format!("key = \"{key}\""));
        to.line(match minimum {
            TlsVersion::V12 => "minimum = \"1.2\"",
            TlsVersion::V13 => "minimum = \"1.3\"",
        });
        let offered: Vec<String> =
            alpn.iter().map(|alpn| format!("\"{}\"", alpn.as_str())).collect();
        to.line(format!("alpn = [{}]", offered.join(", ")));
    }
    let ProxyProtocol { accept, send } = intent.proxy_protocol;
    if accept || send {
        to.line("");
        to.line("[proxy_protocol]");
        to.line(format!("accept = {accept}"));
        to.line(format!("send = {send}"));
    }
    if let Some(sticky) = &intent.sticky {
        to.line("");
        to.line("[sticky]");
        match sticky {
            Sticky::Cookie(cookie) => to.line(format!("cookie = \"{cookie}\"")),
            Sticky::Source => to.line("source = true"),
        }
    }
}
