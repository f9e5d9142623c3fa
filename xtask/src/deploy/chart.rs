//! What each value of the chart does: `deploy/helm/cases.yaml`, rendered by helm.
//!
//! An expectation that the default values meet as well would hold whatever the value does, so each is
//! also checked against the default rendering. A value that no case sets is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use portolan_kit::{shell, tree};
use serde::Deserialize;
use serde_json::Value;

use super::tools::Tools;
use super::{CHART, values};

const CASES: &str = "deploy/helm/cases.yaml";
const NAMESPACE: &str = "portolan";

/// One claim about the chart.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    claim: String,
    #[serde(default)]
    values: Value,
    namespace: Option<String>,
    agent: Option<Value>,
    pod: Option<Value>,
    config: Option<Value>,
    #[serde(default)]
    objects: BTreeMap<String, Value>,
    gone: Option<Gone>,
    #[serde(default)]
    absent: Vec<String>,
    refused: Option<String>,
}

/// Fragments that the default values render.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Gone {
    agent: Option<Value>,
    #[serde(default)]
    objects: BTreeMap<String, Value>,
}

/// A part of a rendering by name, and what it must have.
type Part<'a> = (&'a str, &'a Value);

/// The objects of a rendering.
struct Rendering {
    objects: Vec<Value>,
}

/// Renders every case, and returns the texts of the accepted ones for other checks.
pub fn check(tools: &Tools) -> Result<Vec<String>> {
    let text = fs::read_to_string(tree::root().join(CASES)).context(CASES)?;
    let cases: Vec<Case> = serde_saphyr::from_str(&text).context(CASES)?;
    let default = Rendering::read(&render(tools, &Value::Null, NAMESPACE)?)?;
    let mut wrong = Vec::new();
    let mut accepted = Vec::new();
    for case in &cases {
        let rendered = render(tools, &case.values, case.namespace.as_deref().unwrap_or(NAMESPACE));
        let problems = match (&case.refused, rendered) {
            (None, Ok(text)) => {
                let problems = case.problems(&Rendering::read(&text)?, &default);
                accepted.push(text);
                problems
            }
            (None, Err(error)) => vec![format!("{error:#}")],
            (Some(_), Ok(_)) => vec!["it is rendered, but must be refused".to_owned()],
            (Some(why), Err(error)) => {
                let text = format!("{error:#}");
                let says = text.contains(why.as_str());
                if says { Vec::new() } else { vec![format!("the reason is not `{why}`: {text}")] }
            }
        };
        wrong.extend(problems.into_iter().map(|problem| format!("{}: {problem}", case.claim)));
    }
    let set: BTreeSet<String> = cases.iter().flat_map(|case| paths(&case.values)).collect();
    let without =
        values::read()?.into_iter().filter(|value| value.default.is_some()).filter(|value| {
            !set.iter()
                .any(|path| path == &value.path || path.starts_with(&format!("{}.", value.path)))
        });
    wrong.extend(without.map(|value| format!("{}: no case sets it", value.path)));
    if !wrong.is_empty() {
        bail!("{CASES}:\n{}", wrong.join("\n"));
    }
    println!("{} claims about the chart", cases.len());
    Ok(accepted)
}

/// What `helm install` with these values would create, tests included.
fn render(tools: &Tools, values: &Value, namespace: &str) -> Result<String> {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    // JSON is YAML; no values are an empty object.
    fs::write(file.path(), if values.is_null() { "{}".to_owned() } else { values.to_string() })?;
    let mut helm = Command::new(&tools.helm);
    helm.args(["template", "portolan", CHART, "--namespace", namespace, "--values"]);
    shell::output(helm.arg(file.path()).current_dir(tree::root()))
}

/// The dotted paths of all values in `values`.
fn paths(values: &Value) -> Vec<String> {
    let Some(map) = values.as_object().filter(|map| !map.is_empty()) else { return Vec::new() };
    let below = map.iter().flat_map(|(key, value)| {
        let below = paths(value).into_iter().map(move |path| format!("{key}.{path}"));
        below.chain([key.clone()])
    });
    below.collect()
}

impl Case {
    fn expected(&self) -> impl Iterator<Item = Part<'_>> {
        let named = [("agent", &self.agent), ("pod", &self.pod), ("config", &self.config)];
        let named = named.into_iter().filter_map(|(name, part)| Some((name, part.as_ref()?)));
        named.chain(by_kind(&self.objects))
    }

    fn gone(&self) -> impl Iterator<Item = Part<'_>> {
        self.gone.iter().flat_map(|gone| {
            let agent = gone.agent.iter().map(|part| ("agent", part));
            agent.chain(by_kind(&gone.objects))
        })
    }

    fn problems(&self, rendering: &Rendering, default: &Rendering) -> Vec<String> {
        let mut problems = Vec::new();
        if self.expected().count() + self.gone().count() + self.absent.len() == 0 {
            problems.push("nothing is expected".to_owned());
        }
        for (part, fragment) in self.expected() {
            if !rendering.has(part, fragment) {
                problems.push(format!("{part} lacks {fragment}"));
            } else if default.has(part, fragment) {
                problems.push(format!("{part} has {fragment} by default"));
            }
        }
        for (part, fragment) in self.gone() {
            if rendering.has(part, fragment) {
                problems.push(format!("{part} still has {fragment}"));
            } else if !default.has(part, fragment) {
                problems.push(format!("{part} lacks {fragment} by default"));
            }
        }
        for kind in &self.absent {
            if rendering.of(kind).next().is_some() {
                problems.push(format!("there is a {kind}"));
            } else if default.of(kind).next().is_none() {
                problems.push(format!("there is no {kind} by default"));
            }
        }
        if self.config.is_some() && rendering.checksum() == default.checksum() {
            problems.push("the pods keep running with the old configuration".to_owned());
        }
        problems
    }
}

fn by_kind(objects: &BTreeMap<String, Value>) -> impl Iterator<Item = Part<'_>> {
    objects.iter().map(|(kind, part)| (kind.as_str(), part))
}

impl Rendering {
    fn read(text: &str) -> Result<Self> {
        let objects: Vec<Value> =
            serde_saphyr::from_multiple(text).context("reading the objects")?;
        Ok(Self { objects: objects.into_iter().filter(|object| !object.is_null()).collect() })
    }

    fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    fn template(&self) -> Option<&Value> {
        self.of("DaemonSet").next().map(|object| &object["spec"]["template"])
    }

    fn checksum(&self) -> Option<&Value> {
        self.template().map(|pod| &pod["metadata"]["annotations"]["checksum/config"])
    }

    /// Whether `part` (a kind, or a short name for what is in the DaemonSet) has the fragment.
    fn has(&self, part: &str, fragment: &Value) -> bool {
        let pod = self.template().map(|pod| &pod["spec"]);
        match part {
            "pod" => pod.is_some_and(|pod| contains(pod, fragment)),
            "agent" => pod.is_some_and(|pod| contains(&pod["containers"][0], fragment)),
            "config" => self.of("ConfigMap").any(|map| {
                let file = map["data"]["portolan.yaml"].as_str().unwrap_or_default();
                serde_saphyr::from_str(file).is_ok_and(|file: Value| contains(&file, fragment))
            }),
            kind => self.of(kind).any(|object| contains(object, fragment)),
        }
    }
}

/// Whether `whole` has everything in `fragment`: keys of maps, and for each element of a list one that
/// has it.
fn contains(whole: &Value, fragment: &Value) -> bool {
    match (whole, fragment) {
        (Value::Object(whole), Value::Object(fragment)) => fragment
            .iter()
            .all(|(key, part)| whole.get(key).is_some_and(|whole| contains(whole, part))),
        (Value::Array(whole), Value::Array(fragment)) => {
            fragment.iter().all(|part| whole.iter().any(|whole| contains(whole, part)))
        }
        (whole, fragment) => whole == fragment,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fragment_is_found_in_maps_and_lists() {
        let check = |fragment: Value, expected: bool| {
            let whole = json!({"a": {"b": [{"c": 1, "d": 2}, {"c": 3}]}, "e": "f"});
            assert_eq!(contains(&whole, &fragment), expected, "{fragment}");
        };
        check(json!({}), true);
        check(json!({"e": "f"}), true);
        check(json!({"a": {"b": [{"c": 3}]}}), true);
        check(json!({"a": {"b": [{"d": 2}, {"c": 3}]}}), true);
        check(json!({"a": {"b": [{"d": 2, "c": 3}]}}), false);
        check(json!({"e": "g"}), false);
        check(json!({"g": null}), false);
        check(json!({"a": {"b": {"c": 1}}}), false);
    }

    #[test]
    fn a_value_is_known_by_its_path() {
        let set = paths(&json!({"web": {"port": 1, "tls": {}}, "pin": true}));
        assert_eq!(set, ["pin", "web.port", "web.tls", "web"]);
    }
}
