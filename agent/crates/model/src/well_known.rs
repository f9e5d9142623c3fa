//! Default ports of well-known programs, which are not handed out to other services.
//!
//! Not IANA's list, which names something for most ports, but what really runs on servers. Ports
//! below 1024 are never handed out unless requested, so they are not here.

/// A port, and names (or prefixes of names) of services that it is meant for.
const WELL_KNOWN: &[(u16, &[&str])] = &[
    (1080, &["socks", "dante"]),
    (1194, &["openvpn"]),
    (1433, &["sqlservr", "mssql"]),
    (1521, &["oracle", "tnslsnr"]),
    (1883, &["mosquitto", "mqtt", "emqx", "vernemq"]),
    (2049, &["nfs"]),
    (2181, &["zookeeper"]),
    (2375, &["dockerd", "docker"]),
    (2376, &["dockerd", "docker"]),
    (2379, &["etcd"]),
    (2380, &["etcd"]),
    (3000, &["grafana"]),
    (3100, &["loki"]),
    (3128, &["squid"]),
    (3200, &["tempo"]),
    (3260, &["iscsi", "tgtd"]),
    (3306, &["mysql", "mariadb", "percona"]),
    (3389, &["xrdp", "rdp"]),
    (4222, &["nats"]),
    (4317, &["otel", "jaeger", "tempo", "alloy"]),
    (4318, &["otel", "jaeger", "tempo", "alloy"]),
    (4369, &["epmd", "rabbitmq"]),
    (4646, &["nomad"]),
    (5000, &["registry"]),
    (5044, &["logstash"]),
    (5222, &["ejabberd", "prosody", "xmpp"]),
    (5353, &["avahi", "mdns", "systemd-resolve"]),
    (5432, &["postgres"]),
    (5601, &["kibana"]),
    (5671, &["rabbitmq", "beam"]),
    (5672, &["rabbitmq", "beam"]),
    (5900, &["vnc", "Xvnc"]),
    (5984, &["couchdb"]),
    (6000, &["X", "Xorg"]),
    (6379, &["redis", "valkey", "keydb"]),
    (6432, &["pgbouncer"]),
    (6443, &["kube-apiserver", "k3s"]),
    (6831, &["jaeger"]),
    (7000, &["cassandra", "java"]),
    (7474, &["neo4j"]),
    (7687, &["neo4j"]),
    (7946, &["dockerd", "serf", "memberlist"]),
    (8086, &["influxd", "influxdb"]),
    (8123, &["clickhouse"]),
    (8125, &["statsd", "telegraf"]),
    (8200, &["vault", "openbao"]),
    (8300, &["consul"]),
    (8301, &["consul"]),
    (8302, &["consul"]),
    (8500, &["consul"]),
    (8600, &["consul"]),
    (8983, &["solr"]),
    (9000, &["minio", "clickhouse", "php-fpm", "sonarqube"]),
    (9042, &["cassandra", "scylla"]),
    (9090, &["prometheus"]),
    (9091, &["pushgateway"]),
    (9092, &["kafka", "redpanda"]),
    (9093, &["alertmanager"]),
    (9094, &["alertmanager", "kafka"]),
    (9100, &["node_exporter"]),
    (9113, &["nginx-prometheus"]),
    (9115, &["blackbox_exporter"]),
    (9121, &["redis_exporter"]),
    (9187, &["postgres_exporter"]),
    (9200, &["elasticsearch", "opensearch"]),
    (9300, &["elasticsearch", "opensearch"]),
    (9411, &["zipkin"]),
    (9418, &["git"]),
    (10_050, &["zabbix_agent"]),
    (10_051, &["zabbix_server"]),
    (10_062, &["portolan"]),
    (10_248, &["kubelet"]),
    (10_249, &["kube-proxy"]),
    (10_250, &["kubelet"]),
    (10_256, &["kube-proxy"]),
    (10_257, &["kube-controller"]),
    (10_259, &["kube-scheduler"]),
    (11_211, &["memcached"]),
    (11_434, &["ollama"]),
    (15_672, &["rabbitmq", "beam"]),
    (16_686, &["jaeger"]),
    (19_999, &["netdata"]),
    (25_565, &["minecraft"]),
    (26_257, &["cockroach"]),
    (26_379, &["redis"]),
    (27_017, &["mongod", "mongos", "mongo"]),
    (50_051, &["grpc"]),
    (51_820, &["wireguard"]),
];

/// The usual service of a port, unless it is `service` itself.
pub fn of_others(port: u16, service: Option<&str>) -> Option<&'static str> {
    let at = WELL_KNOWN.binary_search_by_key(&port, |(port, _)| *port).ok()?;
    let (_, names) = WELL_KNOWN.get(at)?;
    let own = service.is_some_and(|service| names.iter().any(|name| service.starts_with(name)));
    if own { None } else { names.first().copied() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_complete() {
        assert!(WELL_KNOWN.is_sorted_by(|(a, _), (b, _)| a < b));
        assert!(WELL_KNOWN.iter().all(|(port, names)| *port >= 1024 && !names.is_empty()));
    }

    #[test]
    fn a_port_is_not_kept_from_whom_it_is_known_for() {
        assert_eq!(of_others(5432, None), Some("postgres"));
        assert_eq!(of_others(5432, Some("web")), Some("postgres"));
        assert_eq!(of_others(5432, Some("postgres")), None);
        assert_eq!(of_others(6379, Some("redis-server")), None);
        assert_eq!(of_others(8081, None), None);
    }
}
