//! Envoy 1.28 or later: a bootstrap file with static resources.

use super::super::checked::Address;
use super::super::intent::{
    Algorithm, Backend, HealthCheck, Intent, Mode, Setting, Sticky, Tls, TlsVersion,
};
use super::write::{Writer, seconds};

pub(super) fn render(intent: &Intent, to: &mut Writer) {
    missing(intent, to);
    to.line("static_resources:");
    to.line("  listeners:");
    listener(intent, to);
    to.line("  clusters:");
    cluster(intent, to);
}

/// Lines of YAML further to the right.
fn put(to: &mut Writer, indent: usize, line: impl AsRef<str>) {
    to.line(format!("{}{}", " ".repeat(indent), line.as_ref()));
}

/// Why a setting has its value, at its place.
fn why(intent: &Intent, setting: Setting, indent: usize, to: &mut Writer) {
    if let Some(reason) = intent.reasons.get(&setting) {
        put(to, indent, format!("# {reason}"));
    }
}

/// A type of a configuration that Envoy looks up by name.
fn kind(name: &str) -> String {
    format!("\"@type\": type.googleapis.com/envoy.{name}")
}

fn listener(intent: &Intent, to: &mut Writer) {
    let Intent { name, listen, .. } = intent;
    put(to, 2, format!("- name: {name}"));
    put(to, 4, socket(&listen.ip().to_string(), listen.port()));
    if intent.proxy_protocol.accept {
        put(to, 4, "listener_filters:");
        put(to, 4, "- name: envoy.filters.listener.proxy_protocol");
        put(to, 6, "typed_config:");
        put(to, 8, kind("extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"));
    }
    put(to, 4, "filter_chains:");
    put(to, 4, "- filters:");
    match intent.mode {
        Mode::Http => connection_manager(intent, to),
        Mode::Tcp => {
            put(to, 6, "- name: envoy.filters.network.tcp_proxy");
            put(to, 8, "typed_config:");
            put(to, 10, kind("extensions.filters.network.tcp_proxy.v3.TcpProxy"));
            put(to, 10, format!("stat_prefix: {name}"));
            put(to, 10, format!("cluster: {name}"));
            put(to, 10, format!("max_connect_attempts: {}", intent.retries + 1));
            why(intent, Setting::ClientIdle, 10, to);
            put(to, 10, format!("idle_timeout: {}", seconds(intent.keep_alive.client_idle)));
            if hashes_source(intent) {
                put(to, 10, "hash_policy: [{source_ip: {}}]");
            }
        }
    }
    if let Some(tls) = &intent.tls {
        certificate(tls, to);
    }
}

fn socket(address: &str, port: u16) -> String {
    format!("address: {{socket_address: {{address: \"{address}\", port_value: {port}}}}}")
}

fn connection_manager(intent: &Intent, to: &mut Writer) {
    let Intent { name, .. } = intent;
    put(to, 6, "- name: envoy.filters.network.http_connection_manager");
    put(to, 8, "typed_config:");
    put(
        to,
        10,
        kind("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
    );
    put(to, 10, format!("stat_prefix: {name}"));
    put(to, 10, "use_remote_address: true");
    put(to, 10, "upgrade_configs: [{upgrade_type: websocket}]");
    why(intent, Setting::ClientIdle, 10, to);
    let idle = seconds(intent.keep_alive.client_idle);
    put(to, 10, format!("common_http_protocol_options: {{idle_timeout: {idle}}}"));
    put(to, 10, "http_filters:");
    if let Some(Sticky::Cookie(cookie)) = &intent.sticky {
        put(to, 10, "- name: envoy.filters.http.stateful_session");
        put(to, 12, "typed_config:");
        put(to, 14, kind("extensions.filters.http.stateful_session.v3.StatefulSession"));
        put(to, 14, "session_state:");
        put(to, 16, "name: envoy.http.stateful_session.cookie");
        put(to, 16, "typed_config:");
        put(to, 18, kind("extensions.http.stateful_session.cookie.v3.CookieBasedSessionState"));
        put(to, 18, format!("cookie: {{name: {cookie}, path: /}}"));
    }
    put(to, 10, "- name: envoy.filters.http.router");
    put(to, 12, "typed_config:");
    put(to, 14, kind("extensions.filters.http.router.v3.Router"));
    put(to, 10, "route_config:");
    put(to, 12, "virtual_hosts:");
    put(to, 12, format!("- name: {name}"));
    put(to, 14, "domains: [\"*\"]");
    put(to, 14, "routes:");
    put(to, 14, "- match: {prefix: /}");
    put(to, 16, "route:");
    put(to, 18, format!("cluster: {name}"));
    why(intent, Setting::Request, 18, to);
    put(to, 18, format!("timeout: {}", seconds(intent.timeouts.request)));
    if intent.retries > 0 {
        put(to, 18, "# Only what no backend has begun to answer: nothing is done twice.");
        put(to, 18, "retry_policy:");
        put(to, 20, "retry_on: connect-failure,refused-stream");
        put(to, 20, format!("num_retries: {}", intent.retries));
        put(to, 20, "host_selection_retry_max_attempts: 3");
        put(to, 20, "retry_host_predicate:");
        put(to, 20, "- name: envoy.retry_host_predicates.previous_hosts");
        put(to, 22, "typed_config:");
        put(to, 24, kind("extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"));
    }
    if hashes_source(intent) {
        put(to, 18, "hash_policy: [{connection_properties: {source_ip: true}}]");
    } else if intent.algorithm == Algorithm::HashUri {
        put(to, 18, "hash_policy: [{header: {header_name: \":path\"}}]");
    }
}

fn hashes_source(intent: &Intent) -> bool {
    intent.sticky == Some(Sticky::Source) || intent.algorithm == Algorithm::HashSource
}

fn certificate(tls: &Tls, to: &mut Writer) {
    let Tls { certificate, key, minimum, alpn } = tls;
    put(to, 6, "transport_socket:");
    put(to, 8, "name: envoy.transport_sockets.tls");
    put(to, 8, "typed_config:");
    put(to, 10, kind("extensions.transport_sockets.tls.v3.DownstreamTlsContext"));
    put(to, 10, "common_tls_context:");
    let minimum = match minimum {
        TlsVersion::V12 => "TLSv1_2",
        TlsVersion::V13 => "TLSv1_3",
    };
    put(
        to,
        12,
        format!(
            "tls_params: {{tls_minimum_protocol_version: {minimum}, tls_maximum_protocol_version: TLSv1_3}}"
        ),
    );
    let offered: Vec<&str> = alpn.iter().map(|alpn| alpn.as_str()).collect();
    if !offered.is_empty() {
        put(to, 12, format!("alpn_protocols: [{}]", offered.join(", ")));
    }
    put(to, 12, "tls_certificates:");
    put(to, 12, format!("- certificate_chain: {{filename: {certificate}}}"));
    put(to, 14, format!("private_key: {{filename: {key}}}"));
}

fn cluster(intent: &Intent, to: &mut Writer) {
    let Intent { name, .. } = intent;
    put(to, 2, format!("- name: {name}"));
    let has_names = intent.backends.iter().any(|one| matches!(one.address, Address::Name(..)));
    put(to, 4, if has_names { "type: STRICT_DNS" } else { "type: STATIC" });
    why(intent, Setting::Algorithm, 4, to);
    let policy = match intent.algorithm {
        _ if hashes_source(intent) => "RING_HASH",
        Algorithm::RoundRobin => "ROUND_ROBIN",
        Algorithm::LeastConnections => "LEAST_REQUEST",
        Algorithm::HashSource | Algorithm::HashUri => "RING_HASH",
        Algorithm::Random => "RANDOM",
    };
    put(to, 4, format!("lb_policy: {policy}"));
    why(intent, Setting::Connect, 4, to);
    put(to, 4, format!("connect_timeout: {}", seconds(intent.timeouts.connect)));
    if intent.mode == Mode::Http {
        put(to, 4, "typed_extension_protocol_options:");
        put(to, 6, "envoy.extensions.upstreams.http.v3.HttpProtocolOptions:");
        put(to, 8, kind("extensions.upstreams.http.v3.HttpProtocolOptions"));
        put(to, 8, "explicit_http_config: {http_protocol_options: {}}");
        why(intent, Setting::BackendIdle, 8, to);
        let idle = seconds(intent.keep_alive.backend_idle);
        put(to, 8, format!("common_http_protocol_options: {{idle_timeout: {idle}}}"));
    }
    let limits = intent.limits;
    if limits.connections.is_some() || limits.pending.is_some() {
        put(to, 4, "circuit_breakers:");
        put(to, 6, "thresholds:");
        let mut parts = Vec::new();
        if let Some(most) = limits.connections {
            // Envoy counts for all backends together.
            let most = u64::from(most) * intent.backends.len() as u64;
            parts.push(format!("max_connections: {}", most.min(u64::from(u32::MAX))));
        }
        if let Some(most) = limits.pending {
            let most = u64::from(most) * intent.backends.len() as u64;
            parts.push(format!("max_pending_requests: {}", most.min(u64::from(u32::MAX))));
        }
        put(to, 6, format!("- {{{}}}", parts.join(", ")));
    }
    put(to, 4, "outlier_detection:");
    put(to, 6, "# Failed connects and gateway errors in a row.");
    put(to, 6, format!("consecutive_gateway_failure: {}", intent.passive_check.failures));
    put(to, 6, "enforcing_consecutive_gateway_failure: 100");
    put(to, 6, format!("base_ejection_time: {}", seconds(intent.passive_check.pause)));
    put(to, 6, "interval: 1s");
    health_checks(intent, to);
    if intent.proxy_protocol.send {
        put(to, 4, "transport_socket:");
        put(to, 6, "name: envoy.transport_sockets.upstream_proxy_protocol");
        put(to, 6, "typed_config:");
        put(
            to,
            8,
            kind("extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"),
        );
        put(to, 8, "config: {version: V2}");
        put(to, 8, "transport_socket:");
        put(to, 10, "name: envoy.transport_sockets.raw_buffer");
        put(to, 10, "typed_config:");
        put(to, 12, kind("extensions.transport_sockets.raw_buffer.v3.RawBuffer"));
    }
    put(to, 4, "load_assignment:");
    put(to, 6, format!("cluster_name: {name}"));
    put(to, 6, "endpoints:");
    why(intent, Setting::Backends, 6, to);
    endpoints(intent.primaries(), 0, to);
    if intent.backups().next().is_some() {
        endpoints(intent.backups(), 1, to);
    }
}

fn endpoints<'a>(backends: impl Iterator<Item = &'a Backend>, priority: u8, to: &mut Writer) {
    put(to, 6, format!("- priority: {priority}"));
    put(to, 8, "lb_endpoints:");
    for Backend { address, weight, .. } in backends {
        let (host, port) = address.parts();
        put(to, 8, format!("- load_balancing_weight: {weight}"));
        put(to, 10, format!("endpoint: {{{}}}", socket(&host, port)));
    }
}

fn health_checks(intent: &Intent, to: &mut Writer) {
    let Some(HealthCheck { path, interval, timeout, fall, rise }) = &intent.health_check else {
        return;
    };
    put(to, 4, "health_checks:");
    put(to, 4, format!("- interval: {}", seconds(*interval)));
    put(to, 6, format!("timeout: {}", seconds(*timeout)));
    put(to, 6, format!("unhealthy_threshold: {fall}"));
    put(to, 6, format!("healthy_threshold: {rise}"));
    match path {
        Some(path) => put(to, 6, format!("http_health_check: {{path: \"{path}\"}}")),
        None => put(to, 6, "tcp_health_check: {}"),
    }
}

fn missing(intent: &Intent, to: &mut Writer) {
    if intent.mode == Mode::Http {
        to.missing(format!(
            "keep_alive.connections = {}: Envoy keeps as many as were needed at once",
            intent.keep_alive.connections
        ));
    } else {
        to.missing("keep_alive.connections, keep_alive.backend_idle, timeouts.request: a connection of a client is one to a backend in mode tcp");
    }
}
