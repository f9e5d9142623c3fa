//! Caddy 2.7 or later: a site of a Caddyfile.

use std::fmt::Write as _;

use notation::duration::text as time;

use super::super::checked::Address;
use super::super::intent::{Algorithm, HealthCheck, Intent, Setting, Sticky, TlsVersion};
use super::write::Writer;

pub(super) fn render(intent: &Intent, whole: bool, to: &mut Writer) {
    missing(intent, whole, to);
    if whole {
        to.block("{", "}", |to| {
            if intent.tls.is_some() {
                to.line("# The certificate is given: none is to be had, and no port 80 is needed.");
                to.line("auto_https off");
            }
            to.block("servers {", "}", |to| {
                if intent.proxy_protocol.accept {
                    to.block("listener_wrappers {", "}", |to| {
                        to.line("# From anyone: name the hosts that send it (allow CIDR).");
                        to.line("proxy_protocol");
                        to.line("tls");
                    });
                }
                to.block("timeouts {", "}", |to| {
                    to.why(intent, Setting::ClientIdle);
                    to.line(format!("idle {}", time(intent.keep_alive.client_idle)));
                });
            });
        });
        to.line("");
    }
    let scheme = if intent.tls.is_some() { "https" } else { "http" };
    to.block(&format!("{scheme}://:{} {{", intent.listen.port()), "}", |to| {
        if !intent.listen.ip().is_unspecified() {
            to.line(format!("bind {}", intent.listen.ip()));
        }
        if let Some(tls) = &intent.tls {
            to.block(&format!("tls {} {} {{", tls.certificate, tls.key), "}", |to| {
                to.line(match tls.minimum {
                    TlsVersion::V12 => "protocols tls1.2 tls1.3",
                    TlsVersion::V13 => "protocols tls1.3",
                });
                let mut line = String::from("alpn");
                for alpn in &tls.alpn {
                    line.push(' ');
                    line.push_str(alpn.as_str());
                }
                if !tls.alpn.is_empty() {
                    to.line(line);
                }
            });
        }
        to.block("reverse_proxy {", "}", |to| proxy(intent, to));
    });
}

fn proxy(intent: &Intent, to: &mut Writer) {
    to.why(intent, Setting::Backends);
    let mut line = String::from("to");
    for backend in intent.primaries() {
        // Writing into a String cannot fail.
        let _ = write!(line, " {}", backend.address);
    }
    to.line(line);
    to.why(intent, Setting::Algorithm);
    to.line(policy(intent));
    if intent.retries > 0 {
        to.line(format!("lb_retries {}", intent.retries));
    }
    if let Some(HealthCheck { path, interval, timeout, fall, rise }) = &intent.health_check {
        to.line(format!("health_uri {}", path.as_deref().unwrap_or("/")));
        to.line(format!("health_interval {}", time(*interval)));
        to.line(format!("health_timeout {}", time(*timeout)));
        to.line(format!("health_fails {fall}"));
        to.line(format!("health_passes {rise}"));
    }
    to.line(format!("fail_duration {}", time(intent.passive_check.pause)));
    to.line(format!("max_fails {}", intent.passive_check.failures));
    if let Some(most) = intent.limits.connections {
        to.line(format!("unhealthy_request_count {most}"));
    }
    to.block("transport http {", "}", |to| {
        to.why(intent, Setting::Connect);
        to.line(format!("dial_timeout {}", time(intent.timeouts.connect)));
        to.why(intent, Setting::Request);
        to.line(format!("response_header_timeout {}", time(intent.timeouts.request)));
        to.why(intent, Setting::BackendIdle);
        to.line(format!("keepalive {}", time(intent.keep_alive.backend_idle)));
        to.why(intent, Setting::Connections);
        to.line(format!("keepalive_idle_conns_per_host {}", intent.keep_alive.connections));
        if intent.proxy_protocol.send {
            to.line("proxy_protocol v2");
        }
    });
}

fn policy(intent: &Intent) -> String {
    match (&intent.sticky, intent.algorithm) {
        (Some(Sticky::Cookie(cookie)), _) => format!("lb_policy cookie {cookie}"),
        (Some(Sticky::Source), _) | (None, Algorithm::HashSource) => "lb_policy ip_hash".to_owned(),
        (None, Algorithm::HashUri) => "lb_policy uri_hash".to_owned(),
        (None, Algorithm::LeastConnections) => "lb_policy least_conn".to_owned(),
        (None, Algorithm::Random) => "lb_policy random".to_owned(),
        (None, Algorithm::RoundRobin) if intent.is_weighted() => {
            let weights = intent.primaries().map(|backend| format!(" {}", backend.weight));
            format!("lb_policy weighted_round_robin{}", weights.collect::<String>())
        }
        (None, Algorithm::RoundRobin) => "lb_policy round_robin".to_owned(),
    }
}

fn missing(intent: &Intent, whole: bool, to: &mut Writer) {
    let by_weight = intent.sticky.is_none() && intent.algorithm == Algorithm::RoundRobin;
    if intent.is_weighted() && !by_weight {
        to.missing("weights: Caddy knows them with round_robin only, without sticky; all backends are equal here");
    }
    let backups: Vec<String> = intent.backups().map(|one| one.address.to_string()).collect();
    if !backups.is_empty() {
        to.missing(format!(
            "backup {}: Caddy knows no backups beside a balancing policy",
            super::write::listed(&backups)
        ));
    }
    if intent.limits.pending.is_some() {
        to.missing(
            "limits.pending: Caddy queues no requests; beyond limits.connections it answers 503",
        );
    }
    if intent.health_check.as_ref().is_some_and(|check| check.path.is_none()) {
        to.missing("health_check without path: Caddy checks by HTTP only; / is requested");
    }
    if !whole {
        to.missing(format!(
            "keep_alive.client_idle = \"{}\": a global option of the Caddyfile (servers {{ timeouts {{ idle … }} }}); --whole writes it",
            time(intent.keep_alive.client_idle)
        ));
        if intent.proxy_protocol.accept {
            to.missing("proxy_protocol.accept: a global option of the Caddyfile (servers { listener_wrappers { proxy_protocol } }); --whole writes it");
        }
    }
    if intent.backends.iter().any(|one| matches!(&one.address, Address::Name(..))) {
        to.missing("names of backends are resolved by Caddy for each connection: one name with several addresses counts as one backend");
    }
}
