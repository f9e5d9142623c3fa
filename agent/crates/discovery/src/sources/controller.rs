//! Which controller a pod belongs to, from its name and labels alone.
//!
//! Runtimes report the labels of a pod, Kubernetes its owner too. Controllers label their pods: the
//! value of `pod-template-hash` is the suffix of the name of the Deployment's ReplicaSet, and so
//! on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::service::{Kind, Service, Source};

/// Labels that the kubelet sets for the runtime.
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";

/// The controller of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Controller {
    pub(super) kind: Kind,
    pub(super) name: String,
}

/// A map of labels.
pub(super) trait Labels {
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for HashMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// The labels that rules match, or that are exported.
pub(super) fn selected(labels: &impl Labels, keys: &[String]) -> Arc<[(String, String)]> {
    keys.iter().filter_map(|key| Some((key.clone(), labels.label(key)?.to_owned()))).collect()
}

/// The service of a pod that the kubelet made, and the pod's uid, from the labels that it gives
/// pods and containers.
pub(super) fn of_runtime_labels(labels: &impl Labels, source: Source) -> Option<(Service, String)> {
    let name = labels.label(POD_NAME)?;
    let Controller { kind, name } = of_labels(name, labels);
    let namespace = labels.label(POD_NAMESPACE).unwrap_or_default();
    let uid = labels.label(POD_UID).unwrap_or_default().to_owned();
    Some((Service::new(&name, source).within(namespace).of_kind(kind), uid))
}

/// The workload of a pod of this name, from its labels alone.
pub(super) fn of_labels(pod: &str, labels: &impl Labels) -> Controller {
    let found = |kind, name: &str| Controller { kind, name: name.to_owned() };
    if let Some(hash) = labels.label("pod-template-hash")
        && let Some((set, _)) = pod.rsplit_once('-')
    {
        return of_replica_set(set, Some(hash));
    }
    if let Some(job) =
        labels.label("batch.kubernetes.io/job-name").or_else(|| labels.label("job-name"))
    {
        return of_job(job);
    }
    if let Some(pod) = labels.label("statefulset.kubernetes.io/pod-name")
        && let Some((set, _)) = pod.rsplit_once('-')
    {
        return found(Kind::StatefulSet, set);
    }
    // Daemons and stateful sets both have it; the former's pods end in five random characters.
    if labels.label("controller-revision-hash").is_some()
        && let Some((set, suffix)) = pod.rsplit_once('-')
    {
        let is_ordinal = suffix.bytes().all(|byte| byte.is_ascii_digit());
        return found(if is_ordinal { Kind::StatefulSet } else { Kind::DaemonSet }, set);
    }
    found(Kind::Pod, pod)
}

/// The Deployment of a ReplicaSet: its name without the hash of the template.
pub(super) fn of_replica_set(set: &str, hash: Option<&str>) -> Controller {
    let deployment = hash.and_then(|hash| set.strip_suffix(hash)?.strip_suffix('-'));
    match deployment.filter(|name| !name.is_empty()) {
        Some(name) => Controller { kind: Kind::Deployment, name: name.to_owned() },
        None => Controller { kind: Kind::ReplicaSet, name: set.to_owned() },
    }
}

/// The CronJob of a Job that one has made: its name without the minute it was due
/// (`getJobName`, pkg/controller/cronjob), else the Job.
pub(super) fn of_job(job: &str) -> Controller {
    let minute = |text: &str| text.len() >= 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    match job.rsplit_once('-') {
        Some((name, due)) if minute(due) && !name.is_empty() => {
            Controller { kind: Kind::CronJob, name: name.to_owned() }
        }
        _ => Controller { kind: Kind::Job, name: job.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_give_the_workload_of_a_pod() {
        let check = |pod: &str, labels: &[(&str, &str)], kind, name: &str| {
            let labels: HashMap<String, String> =
                labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let expected = Controller { kind, name: name.to_owned() };
            assert_eq!(of_labels(pod, &labels), expected, "{pod}");
        };
        check(
            "web-7d4b9c8f6d-x2x9z",
            &[("pod-template-hash", "7d4b9c8f6d")],
            Kind::Deployment,
            "web",
        );
        check(
            "lone-set-x2x9z",
            &[("pod-template-hash", "7d4b9c8f6d")],
            Kind::ReplicaSet,
            "lone-set",
        );
        check("db-0", &[("statefulset.kubernetes.io/pod-name", "db-0")], Kind::StatefulSet, "db");
        check("db-0", &[("controller-revision-hash", "db-6f9")], Kind::StatefulSet, "db");
        check("logs-x2x9z", &[("controller-revision-hash", "6f9")], Kind::DaemonSet, "logs");
        check("tidy-28391040-abcde", &[("job-name", "tidy-28391040")], Kind::CronJob, "tidy");
        check("import-abcde", &[("batch.kubernetes.io/job-name", "import")], Kind::Job, "import");
        check("bare", &[], Kind::Pod, "bare");
    }

    #[test]
    fn a_runtime_passes_on_the_labels_of_the_kubelet() {
        let labels: HashMap<String, String> = [
            (POD_NAME, "web-7d4b9c8f6d-x2x9z"),
            (POD_NAMESPACE, "prod"),
            (POD_UID, "1b2c"),
            ("pod-template-hash", "7d4b9c8f6d"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        let (service, uid) = of_runtime_labels(&labels, Source::Cri).unwrap();
        assert_eq!((&*service.name, &*service.namespace, &*uid), ("web", "prod", "1b2c"));
        assert_eq!((service.kind, service.source), (Kind::Deployment, Source::Cri));
        assert_eq!(of_runtime_labels(&HashMap::new(), Source::Cri), None);
    }
}
