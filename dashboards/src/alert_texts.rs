//! What the texts and labels of every alert have in common: the summary names service, port and
//! host, numbers are not written with prefixes such as `393m`, and the team of the service is a
//! label.

use super::namespaces;
use super::rules::Rule;

/// The label that Alertmanager routes by.
const TEAM: &str = "team";
/// How a team is found: the same text in every alert.
const TEAM_OF_SERVER: &str = r#"{{ with printf "topk(1, count by (label_team) (portolan_service_info{cluster=%q, service=%q, service_namespace=%q, label_team!=\"\"}))" $labels.cluster $labels.server $labels.server_namespace | query }}{{ (first .).Labels.label_team }}{{ else }}none{{ end }}"#;

/// Alerts that are about something else than one port of a service on a host.
const ABOUT: [(&str, Subject); 8] = [
    ("PortolanAgentDown", Subject::Host),
    ("PortolanHookMissing", Subject::Host),
    ("PortolanEventsLost", Subject::Host),
    // All local ports of a network namespace.
    ("PortolanLocalPortsLow", Subject::Host),
    // Below the sockets of a network namespace.
    ("PortolanConntrackNearlyFull", Subject::Host),
    ("PortolanInterfaceDrops", Subject::Host),
    ("PortolanTcpMemoryPressure", Subject::Host),
    ("PortolanCoverageLow", Subject::Cluster),
];

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A port of a service on a host.
    Service,
    /// A host.
    Host,
    /// A cluster.
    Cluster,
}

impl Subject {
    /// What this alert is about.
    pub fn of(alert: &str) -> Self {
        ABOUT.iter().find(|(name, _)| *name == alert).map_or(Self::Service, |(_, subject)| *subject)
    }

    /// What a summary has to mention: any of each group.
    const fn mentions(self) -> &'static [(&'static str, &'static [&'static str])] {
        const HOST: (&str, &[&str]) =
            ("host", &["$labels.instance | stripPort", ".Labels.instance | stripPort"]);
        match self {
            Self::Service => &[
                ("service", &["$labels.server ", "$labels.claimant ", "$labels.offender "]),
                ("port", &["$labels.port ", ".Labels.port "]),
                HOST,
            ],
            Self::Host => &[HOST],
            Self::Cluster => &[("cluster", &["$labels.cluster"])],
        }
    }
}

/// Reports what an alert's texts lack.
pub fn check(rule: &Rule, report: &mut impl FnMut(String)) {
    let subject = Subject::of(rule.name());
    let summary = rule.annotations.get("summary").map_or("", String::as_str);
    for (what, any_of) in subject.mentions() {
        // Arguments of queries name nothing to a reader.
        if !any_of.iter().any(|text| shown(summary).any(|action| action.contains(text))) {
            report(format!("annotations.summary does not name the {what}"));
        }
    }
    for (key, text) in &rule.annotations {
        if actions(text).any(|action| action.split('|').any(|part| part.trim() == "humanize")) {
            report(format!(
                "annotations.{key} uses humanize, which writes 0.39 as 393m: give a rate per minute and use printf"
            ));
        }
    }
    for (key, text) in &rule.annotations {
        let mut report = |what: String| report(format!("annotations.{key}: {what}"));
        actions(text).for_each(|action| namespaces::check_query(action, &mut report));
    }
    let team = rule.labels.get(TEAM).map(String::as_str);
    if subject == Subject::Service && team != Some(TEAM_OF_SERVER) {
        report(format!("labels.{TEAM} has to be: {TEAM_OF_SERVER}"));
    }
}

/// What stands between `{{` and `}}`.
fn actions(text: &str) -> impl Iterator<Item = &str> {
    text.split("{{").skip(1).filter_map(|rest| rest.split("}}").next())
}

/// The actions that write something, and those that set a variable.
fn shown(text: &str) -> impl Iterator<Item = &str> {
    let controls = ["range ", "if ", "else", "end"];
    actions(text).filter(move |action| {
        !action.contains("| query") && !controls.iter().any(|word| action.trim().starts_with(word))
    })
}
