//! Traefik 3.4 or later: a file for its file provider, which watches it.

use notation::duration::text;

use super::super::intent::{
    Algorithm, Backend, HealthCheck, Intent, Mode, Setting, Sticky, TlsVersion,
};
use super::write::{Writer, listed};

pub(super) fn render(intent: &Intent, to: &mut Writer) {
    let Intent { name, .. } = intent;
    missing(intent, to);
    let (section, rule) = match intent.mode {
        Mode::Http => ("http:", "PathPrefix(`/`)"),
        Mode::Tcp => ("tcp:", "HostSNI(`*`)"),
    };
    to.block(section, "", |to| {
        to.block("routers:", "", |to| {
            to.block(&format!("{name}:"), "", |to| {
                to.line(format!("entryPoints: [{name}]"));
                to.line(format!("rule: {rule}"));
                to.line(format!("service: {name}"));
                let middlewares = middlewares(intent);
                if !middlewares.is_empty() {
                    to.line(format!("middlewares: [{}]", middlewares.join(", ")));
                }
                if intent.tls.is_some() {
                    to.line("tls: {}");
                }
            });
        });
        to.block("services:", "", |to| services(intent, to));
        if intent.mode == Mode::Http && intent.retries > 0 {
            to.block("middlewares:", "", |to| {
                to.block(&format!("{name}-retry:"), "", |to| {
                    to.block("retry:", "", |to| {
                        to.line(format!("attempts: {}", intent.retries + 1));
                    });
                });
            });
        }
        to.block("serversTransports:", "", |to| {
            to.block(&format!("{name}:"), "", |to| transport(intent, to));
        });
    });
    if let Some(tls) = &intent.tls {
        to.block("tls:", "", |to| {
            to.block("certificates:", "", |to| {
                to.line(format!("- certFile: {}", tls.certificate));
                to.line(format!("  keyFile: {}", tls.key));
            });
            to.block("options:", "", |to| {
                // Other options are not taken by routers whose rule names no domain.
                to.block("default:", "", |to| {
                    to.line(match tls.minimum {
                        TlsVersion::V12 => "minVersion: VersionTLS12",
                        TlsVersion::V13 => "minVersion: VersionTLS13",
                    });
                    let offered: Vec<&str> = tls.alpn.iter().map(|alpn| alpn.as_str()).collect();
                    if !offered.is_empty() {
                        to.line(format!("alpnProtocols: [{}]", offered.join(", ")));
                    }
                });
            });
        });
    }
}

fn middlewares(intent: &Intent) -> Vec<String> {
    let is_retried = intent.mode == Mode::Http && intent.retries > 0;
    if is_retried { vec![format!("{}-retry", intent.name)] } else { Vec::new() }
}

/// The backends; with backups a service that fails over to a second one.
fn services(intent: &Intent, to: &mut Writer) {
    let name = &intent.name;
    let backups: Vec<&Backend> = intent.backups().collect();
    let primaries: Vec<&Backend> = intent.primaries().collect();
    if backups.is_empty() || !has_failover(intent) {
        return balanced(intent, name, &primaries, to);
    }
    to.block(&format!("{name}:"), "", |to| {
        to.block("failover:", "", |to| {
            to.line(format!("service: {name}-primary"));
            to.line(format!("fallback: {name}-backup"));
            to.line("healthCheck: {}");
        });
    });
    balanced(intent, &format!("{name}-primary"), &primaries, to);
    balanced(intent, &format!("{name}-backup"), &backups, to);
}

/// Failover needs active checks.
fn has_failover(intent: &Intent) -> bool {
    intent.mode == Mode::Http && intent.health_check.is_some()
}

fn balanced(intent: &Intent, name: &str, backends: &[&Backend], to: &mut Writer) {
    to.block(&format!("{name}:"), "", |to| {
        to.block("loadBalancer:", "", |to| {
            to.line(format!("serversTransport: {}", intent.name));
            if intent.mode == Mode::Http {
                to.why(intent, Setting::Algorithm);
                to.line(format!("strategy: {}", strategy(intent)));
                if let Some(Sticky::Cookie(cookie)) = &intent.sticky {
                    to.block("sticky:", "", |to| {
                        to.block("cookie:", "", |to| {
                            to.line(format!("name: {cookie}"));
                            to.line("httpOnly: true");
                        });
                    });
                }
                if let Some(HealthCheck { path, interval, timeout, .. }) = &intent.health_check {
                    to.block("healthCheck:", "", |to| {
                        to.line(format!("path: \"{}\"", path.as_deref().unwrap_or("/")));
                        to.line(format!("interval: {}", text(*interval)));
                        to.line(format!("timeout: {}", text(*timeout)));
                    });
                }
                to.block("passiveHealthCheck:", "", |to| {
                    to.line(format!("maxFailedAttempts: {}", intent.passive_check.failures));
                    to.line(format!("failureWindow: {}", text(intent.passive_check.pause)));
                });
            }
            to.why(intent, Setting::Backends);
            to.block("servers:", "", |to| {
                for Backend { address, weight, .. } in backends {
                    match intent.mode {
                        Mode::Http => {
                            to.line(format!("- url: \"http://{address}\""));
                            to.line(format!("  weight: {weight}"));
                        }
                        Mode::Tcp => to.line(format!("- address: \"{address}\"")),
                    }
                }
            });
        });
    });
}

fn strategy(intent: &Intent) -> &'static str {
    match (&intent.sticky, intent.algorithm) {
        (Some(Sticky::Source), _) | (None, Algorithm::HashSource) => "hrw",
        (_, Algorithm::LeastConnections | Algorithm::Random) => "p2c",
        _ => "wrr",
    }
}

fn transport(intent: &Intent, to: &mut Writer) {
    match intent.mode {
        Mode::Http => {
            to.why(intent, Setting::Connections);
            to.line(format!("maxIdleConnsPerHost: {}", intent.keep_alive.connections));
            to.block("forwardingTimeouts:", "", |to| {
                to.why(intent, Setting::Connect);
                to.line(format!("dialTimeout: {}", text(intent.timeouts.connect)));
                to.why(intent, Setting::Request);
                to.line(format!("responseHeaderTimeout: {}", text(intent.timeouts.request)));
                to.why(intent, Setting::BackendIdle);
                to.line(format!("idleConnTimeout: {}", text(intent.keep_alive.backend_idle)));
            });
        }
        Mode::Tcp => {
            to.why(intent, Setting::Connect);
            to.line(format!("dialTimeout: {}", text(intent.timeouts.connect)));
            if intent.proxy_protocol.send {
                to.block("proxyProtocol:", "", |to| to.line("version: 2"));
            }
        }
    }
}

fn missing(intent: &Intent, to: &mut Writer) {
    let Intent { name, listen, .. } = intent;
    to.missing(format!(
        "listen, keep_alive.client_idle{}: of Traefik's static configuration: --entryPoints.{name}.address={listen} --entryPoints.{name}.transport.respondingTimeouts.idleTimeout={}{}",
        if intent.proxy_protocol.accept { " and proxy_protocol.accept" } else { "" },
        text(intent.keep_alive.client_idle),
        if intent.proxy_protocol.accept {
            format!(" --entryPoints.{name}.proxyProtocol.trustedIPs=CIDR")
        } else {
            String::new()
        }
    ));
    let backups: Vec<String> = intent.backups().map(|one| one.address.to_string()).collect();
    if !backups.is_empty() && !has_failover(intent) {
        to.missing(format!(
            "backup {}: Traefik fails over in mode http with a [health_check] only",
            listed(&backups)
        ));
    }
    if intent.limits.connections.is_some() || intent.limits.pending.is_some() {
        to.missing("limits: Traefik limits requests per router (inFlightReq), not per backend");
    }
    match (intent.mode, intent.algorithm) {
        (Mode::Http, Algorithm::HashUri) => {
            to.missing("algorithm = \"hash_uri\": Traefik hashes addresses only (hash_source); wrr is used");
        }
        (Mode::Http, Algorithm::LeastConnections | Algorithm::Random) => {
            to.missing("algorithm: Traefik takes the better of two at random (p2c) instead; it knows no weights there");
        }
        (Mode::Tcp, algorithm) if algorithm != Algorithm::RoundRobin => {
            to.missing("algorithm: Traefik balances TCP round robin only");
        }
        _ => {}
    }
    if intent.mode == Mode::Tcp {
        if intent.is_weighted() {
            to.missing("weights: Traefik weighs services, not servers, in mode tcp; all backends are equal here");
        }
        if intent.sticky.is_some() {
            to.missing("sticky.source: Traefik keeps no client at a backend in mode tcp");
        }
        if intent.health_check.is_some() {
            to.missing("health_check: written for mode http only");
        }
        to.missing("passive_check, retries, keep_alive.connections, keep_alive.backend_idle: Traefik has none of them in mode tcp");
    } else {
        if intent.proxy_protocol.send {
            to.missing("proxy_protocol.send: Traefik sends it in mode tcp only; backends get X-Forwarded-For");
        }
        if intent.health_check.as_ref().is_some_and(|check| check.fall != 1 || check.rise != 1) {
            to.missing("health_check.fall and rise: Traefik acts on the first result");
        }
        if intent.health_check.as_ref().is_some_and(|check| check.path.is_none()) {
            to.missing("health_check without path: Traefik checks by HTTP only; / is requested");
        }
    }
}
