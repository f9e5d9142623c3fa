//! What is known of services besides their names: the class, and chosen labels of their pods and
//! containers. `portolan_service_info` exports both, to be joined by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::pattern::fits;
use super::service::{Service, printable};

/// Labels of pods and containers that are exported at most: each is a label of every service.
pub const MAX_LABELS: usize = 8;
/// How the names of their Prometheus labels begin, so that none is one of the agent's own.
const PREFIX: &str = "label_";

/// What a service is for. Objectives and service map are about applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Everything that is not one of the others.
    Application,
    /// It monitors or checks other services.
    Monitoring,
    /// It is part of the system.
    System,
}

/// `[NAMESPACE/]NAME` of services, with `*` for any text; without a namespace it is of any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    namespace: Option<String>,
    name: String,
}

/// Which services are of which class; an application is everything else.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Classes {
    /// Services that monitor or check others.
    pub monitoring: Vec<Pattern>,
    /// Services of the system.
    pub system: Vec<Pattern>,
    /// Services, of any class, whose clients wait for events.
    pub polled: Vec<Pattern>,
}

/// Values of the exported labels, by service.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ContainerLabels {
    /// Their names as pods and containers have them.
    keys: Vec<String>,
    /// Their names as labels in Prometheus.
    names: Vec<String>,
    /// Name and namespace of the service, and a value for each of `names`.
    values: BTreeMap<(Arc<str>, Arc<str>), Vec<Value>>,
}

/// The value of a label over all containers of a service.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
enum Value {
    /// No container has the label.
    #[default]
    Absent,
    /// Every container that has it has this value.
    One(String),
    /// Containers differ.
    Several,
}

/// Class and labels of services.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Directory {
    /// Classes by name.
    pub classes: Classes,
    /// Labels by name.
    pub labels: ContainerLabels,
}

// === impl Class ===

impl Class {
    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Monitoring => "monitoring",
            Self::System => "system",
        }
    }
}

// === impl Pattern ===

impl Pattern {
    /// Parses `[NAMESPACE/]NAME`; `None` if a part is empty.
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        let is_text = |part: &str| !part.is_empty() && part == printable(part);
        (is_text(name) && namespace.is_none_or(is_text))
            .then(|| Self { namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }

    /// Whether a service is called so.
    pub fn fits(&self, name: &str, namespace: &str) -> bool {
        self.namespace.as_ref().is_none_or(|wanted| fits(wanted, namespace))
            && fits(&self.name, name)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

// === impl Classes ===

impl Classes {
    /// The class of a service.
    pub fn of(&self, name: &str, namespace: &str) -> Class {
        if is_among(&self.monitoring, name, namespace) {
            Class::Monitoring
        } else if is_among(&self.system, name, namespace) {
            Class::System
        } else {
            Class::Application
        }
    }

    /// Whether long requests to a service, one right after the other, wait for events (long polling).
    pub fn is_polled(&self, name: &str, namespace: &str) -> bool {
        is_among(&self.polled, name, namespace)
    }
}

fn is_among(patterns: &[Pattern], name: &str, namespace: &str) -> bool {
    patterns.iter().any(|one| one.fits(name, namespace))
}

// === impl ContainerLabels ===

impl ContainerLabels {
    /// For labels of these names, as pods and containers have them; further ones than
    /// [`MAX_LABELS`] are left out.
    pub fn new(keys: &[String]) -> Self {
        let keys: Vec<String> = keys.iter().take(MAX_LABELS).cloned().collect();
        let names = keys.iter().map(|key| label_name(key)).collect();
        Self { keys, names, values: BTreeMap::new() }
    }

    /// Enters a container of a service; `value` is that of the label with this number. Values are
    /// bounded and printable, as names are.
    pub fn add<'a>(&mut self, service: &Service, value: impl Fn(usize) -> Option<&'a str>) {
        let key = (Arc::clone(&service.name), Arc::clone(&service.namespace));
        let known = self.values.entry(key).or_insert_with(|| vec![Value::Absent; self.names.len()]);
        for (number, known) in known.iter_mut().enumerate() {
            let Some(value) = value(number).map(printable).filter(|value| !value.is_empty()) else {
                continue;
            };
            match known {
                Value::Absent => *known = Value::One(value.into_owned()),
                Value::One(one) if *one != value => *known = Value::Several,
                Value::One(_) | Value::Several => {}
            }
        }
    }

    /// The labels of a service: name in Prometheus, and the value that all its containers share.
    pub fn of<'a>(
        &'a self,
        name: &Arc<str>,
        namespace: &Arc<str>,
    ) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.valued(&self.names, name, namespace)
    }

    /// The same, with the names that pods and containers have them under.
    pub fn written<'a>(
        &'a self,
        name: &Arc<str>,
        namespace: &Arc<str>,
    ) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.valued(&self.keys, name, namespace)
    }

    fn valued<'a>(
        &'a self,
        names: &'a [String],
        name: &Arc<str>,
        namespace: &Arc<str>,
    ) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let values = self.values.get(&(Arc::clone(name), Arc::clone(namespace)));
        let both = values.into_iter().flat_map(|values| names.iter().zip(values));
        both.filter_map(|(name, value)| match value {
            Value::One(value) => Some((name.as_str(), value.as_str())),
            Value::Absent | Value::Several => None,
        })
    }
}

/// The name of a label of pods or containers as Prometheus allows it: `app.kubernetes.io/version`
/// is `label_app_kubernetes_io_version`, as kube-state-metrics writes it.
pub fn label_name(key: &str) -> String {
    let plain = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    PREFIX.chars().chain(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Source;

    fn classes(monitoring: &[&str], system: &[&str]) -> Classes {
        let all = |texts: &[&str]| texts.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        Classes { monitoring: all(monitoring), system: all(system), polled: Vec::new() }
    }

    #[test]
    fn a_class_follows_from_name_and_namespace() {
        let classes =
            classes(&["prometheus", "*-exporter", "monitoring/*"], &["kube-system/*", "sshd"]);
        let check = |name: &str, namespace: &str, expected: Class| {
            assert_eq!(classes.of(name, namespace), expected, "{namespace}/{name}");
        };
        check("prometheus", "", Class::Monitoring);
        check("prometheus", "shop", Class::Monitoring);
        check("prometheus2", "", Class::Application);
        check("node-exporter", "", Class::Monitoring);
        check("grafana", "monitoring", Class::Monitoring);
        check("grafana", "", Class::Application);
        check("coredns", "kube-system", Class::System);
        check("coredns", "shop", Class::Application);
        check("sshd", "", Class::System);
        assert_eq!(Classes::default().of("sshd", ""), Class::Application);
    }

    #[test]
    fn a_pattern_is_a_name_with_or_without_a_namespace() {
        for text in ["a", "a*", "a/b", "*/b", "kube-system/*"] {
            assert_eq!(Pattern::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "/", "a/", "/a", " a", "a\n"] {
            assert_eq!(Pattern::parse(text), None, "{text:?}");
        }
    }

    fn of(labels: &ContainerLabels, name: &str) -> Vec<(String, String)> {
        let found = labels.of(&name.into(), &"".into());
        found.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn a_label_on_which_containers_of_a_service_differ_is_left_out() {
        let keys = ["team".to_owned(), "app.kubernetes.io/version".to_owned()];
        let mut labels = ContainerLabels::new(&keys);
        let web = Service::new("web", Source::Docker);
        let mut add = |service: &Service, team: Option<&'static str>, version: &'static str| {
            labels.add(service, |number| if number == 0 { team } else { Some(version) });
        };
        add(&web, Some("payments"), "1.2");
        add(&web, None, "1.2");
        add(&Service::new("db", Source::Docker), Some("storage"), "15");
        add(&Service::new("db", Source::Docker), Some("storage"), "16");
        add(&Service::new("db", Source::Docker), Some("storage"), "15");
        let version = "label_app_kubernetes_io_version";
        assert_eq!(of(&labels, "web"), [pair("label_team", "payments"), pair(version, "1.2")]);
        assert_eq!(of(&labels, "db"), [pair("label_team", "storage")]);
        assert_eq!(of(&labels, "mail"), []);
    }

    #[test]
    fn values_are_bounded_and_printable_as_names_are() {
        let mut labels = ContainerLabels::new(&["team".to_owned()]);
        let web = Service::new("web", Source::Docker);
        labels.add(&web, |_| Some("a\u{1b}[31m\n"));
        assert_eq!(of(&labels, "web"), [pair("label_team", "a_[31m")]);
        let long = "x".repeat(100_000);
        labels.add(&Service::new("db", Source::Docker), |_| Some(&long));
        assert_eq!(of(&labels, "db")[0].1.len(), 253);
        labels.add(&Service::new("empty", Source::Docker), |_| Some(""));
        assert_eq!(of(&labels, "empty"), []);
    }

    #[test]
    fn there_are_at_most_so_many_labels_whatever_is_configured() {
        let keys: Vec<String> = (0..100).map(|number| format!("key{number}")).collect();
        let mut labels = ContainerLabels::new(&keys);
        labels.add(&Service::new("web", Source::Docker), |_| Some("x"));
        assert_eq!(of(&labels, "web").len(), MAX_LABELS);
    }
}
