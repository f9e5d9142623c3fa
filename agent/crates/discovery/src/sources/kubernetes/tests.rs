//! How objects of the API server become names.

use super::*;
use crate::cgroup_info::CgroupInfo;

fn objects() -> Objects {
    let mut objects = Objects::default();
    let pod = |name: &str, ip: &str, owner: serde_json::Value, labels: serde_json::Value| {
        serde_json::json!({
            "metadata": {"name": name, "namespace": "prod", "uid": format!("uid-{name}"),
                "labels": labels, "ownerReferences": owner},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"phase": "Running", "podIPs": [{"ip": ip}],
                "containerStatuses": [{"name": "c", "containerID": format!("containerd://{}", "a".repeat(64))}]},
        })
    };
    let owner = |kind: &str, name: &str| serde_json::json!([{"kind": kind, "name": name, "controller": true}]);
    let pods = serde_json::json!([
        pod(
            "web-7d4-x",
            "10.1.0.2",
            owner("ReplicaSet", "web-7d4"),
            serde_json::json!({"pod-template-hash": "7d4"})
        ),
        pod("db-0", "10.1.0.3", owner("StatefulSet", "db"), serde_json::json!({})),
        pod("tidy-28391040-q", "10.1.0.4", owner("Job", "tidy-28391040"), serde_json::json!({})),
        pod("etcd-n1", "10.1.0.5", owner("Node", "n1"), serde_json::json!({})),
        pod("bare", "10.1.0.6", serde_json::json!([]), serde_json::json!({})),
    ]);
    let services = serde_json::json!([{
        "metadata": {"name": "web-svc", "namespace": "prod"},
        "spec": {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00::a"],
            "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}},
    }, {"metadata": {"name": "headless", "namespace": "prod"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}]);
    let slices = serde_json::json!([{
        "metadata": {"name": "web-svc-abc", "namespace": "prod", "labels": {SERVICE_NAME: "web-svc"}},
        "endpoints": [{"addresses": ["10.1.0.2"], "targetRef": {"kind": "Pod", "name": "web-7d4-x", "uid": "uid-web-7d4-x"}},
            {"addresses": ["10.9.9.9"]},
            {"addresses": ["10.9.9.10"], "conditions": {"ready": false}}],
        "ports": [{"port": 8080}, {"port": 8081, "protocol": "UDP"}, {"name": "any"}],
    }, {"metadata": {"name": "no-service"}, "endpoints": null}]);
    objects.take(News::Pods(Change::All(serde_json::from_value(pods).unwrap())));
    objects.take(News::Services(Change::All(serde_json::from_value(services).unwrap())));
    objects.take(News::Slices(Change::All(serde_json::from_value(slices).unwrap())));
    objects
}

#[test]
fn pods_are_their_workload_and_services_know_their_backends() {
    let inventory = objects().inventory(&[]);
    let ip = |text: &str| address::from_ip(text.parse().unwrap());
    let check = |address: &str, name: &str, kind| {
        let service = &inventory.at(ip(address)).unwrap().service;
        assert_eq!((&*service.name, &*service.namespace, service.kind), (name, "prod", kind));
    };
    check("10.1.0.2", "web", Kind::Deployment);
    check("10.1.0.3", "db", Kind::StatefulSet);
    check("10.1.0.4", "tidy", Kind::CronJob);
    check("10.1.0.5", "etcd", Kind::Pod);
    check("10.1.0.6", "bare", Kind::Pod);
    for address in ["10.96.0.10", "fd00::a", "203.0.113.7"] {
        let frontend = inventory.frontend(ip(address), 80).unwrap();
        assert_eq!(&*frontend.service.name, "web-svc");
        assert_eq!(frontend.backends, ["10.1.0.2", "10.9.9.9", "10.9.9.10"].map(ip));
    }
    assert_eq!(inventory.frontend(ip("10.96.0.10"), 53), None);
    assert_eq!(&*inventory.endpoint(ip("10.9.9.9")).unwrap().service.name, "web-svc");
    assert_eq!(&*inventory.endpoint(ip("10.1.0.2")).unwrap().instance, "web-7d4-x");
    assert_eq!(&*inventory.at(ip("10.1.0.3")).unwrap().instance, "db-0");
    let mut ready: Vec<_> = inventory.ready().collect();
    ready.sort_unstable();
    assert_eq!(ready, [(ip("10.1.0.2"), 8080), (ip("10.9.9.9"), 8080)]);
    let place = CgroupInfo { pod: Some("uid-db-0".into()), ..CgroupInfo::default() };
    assert_eq!(&*inventory.workload(&place).unwrap().service.name, "db");
}

#[test]
fn what_was_looked_up_beats_what_a_name_suggests() {
    let mut objects = objects();
    let key = ("Job".to_owned(), "prod".to_owned(), "tidy-28391040".to_owned());
    let job = Controller { kind: Kind::Job, name: "tidy-28391040".into() };
    objects.owners.insert(key, Some(job));
    let inventory = objects.inventory(&[]);
    let service = &inventory.at(address::from_ip("10.1.0.4".parse().unwrap())).unwrap().service;
    assert_eq!((&*service.name, service.kind), ("tidy-28391040", Kind::Job));
}

#[test]
fn a_denied_part_takes_only_itself_away() {
    let mut objects = objects();
    objects.take(News::Services(Change::Refused("forbidden".into())));
    assert_eq!(objects.detail().as_deref(), Some("no services: forbidden"));
    assert_eq!(objects.all_refused(), None);
    objects.take(News::Pods(Change::Refused("forbidden".into())));
    objects.take(News::Slices(Change::Refused("forbidden".into())));
    assert_eq!(objects.all_refused().as_deref(), Some("forbidden"));
}

#[test]
fn a_cluster_is_written_as_it_is_read() {
    for text in ["auto", "off", "http://127.0.0.1:8001/", "https://k8s.example:6443/"] {
        assert_eq!(text.parse::<Cluster>().unwrap().to_string(), text);
    }
    for text in ["", "on", "127.0.0.1", "/x"] {
        assert!(text.parse::<Cluster>().is_err(), "{text}");
    }
}
