//! `cargo xtask deploy`: checks that `deploy/` matches the agent, the chart, and the tools that
//! consume it.
//!
//! The rendered manifests must be the chart's output, each of its values must do what `cases.yaml`
//! claims, the capabilities everywhere be those that the agent requires, and the schemas of Kubernetes,
//! systemd and Docker must accept all of it.

mod chart;
mod compose;
mod tools;
mod values;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use portolan_kit::build::{self, Checks};
use portolan_kit::report::Report;
use portolan_kit::{shell, tree};
use serde_json::Value;

use tools::Tools;

/// Maximum exposure in `systemd-analyze security`: 0 is locked up, 10 is open.
const HIGHEST_EXPOSURE: f64 = 3.0;

const CHART: &str = "deploy/helm/portolan";
const RENDERED: &str = "deploy/kubernetes/portolan.yaml";
const HEAD: &str =
    "# Made by `cargo xtask deploy --write` from deploy/helm/portolan with its default values.\n";

#[derive(clap::Args)]
pub struct Args {
    /// Take only the steps whose names contain one of these: `chart`, `compose`
    steps: Vec<String>,
    /// Write what is made from the chart: deploy/kubernetes/portolan.yaml, and the values in its README
    #[arg(long, conflicts_with = "steps")]
    write: bool,
}

type Step = fn(&Tools) -> Result<()>;

const STEPS: [(&str, Step); 9] = [
    ("helm lint", lint),
    ("rendered manifests are the chart's", rendered),
    ("what each value of the chart does", values_of_chart),
    ("generated NetworkPolicies", policies),
    ("capabilities are those that the agent requires", capabilities),
    ("Dockerfiles", dockerfiles),
    ("compose files", |_| compose::check()),
    ("systemd", systemd),
    ("the OpenAPI document", openapi),
];

pub fn deploy(args: &Args) -> Result<()> {
    let tools = Tools::install()?;
    if args.write {
        values::write()?;
        let text = format!("{HEAD}{}", template(&tools, &[])?);
        return fs::write(tree::root().join(RENDERED), text).context("writing the manifests");
    }
    let mut report = Report::default();
    take_steps(&tools, &args.steps, &mut report);
    if report.failed > 0 {
        bail!("not ready to be deployed");
    }
    if report.passed == 0 {
        bail!("no step's name contains {}", args.steps.join(" or "));
    }
    Ok(())
}

/// Takes the steps as tests; without the programs they need, which come from the network, they are
/// skipped.
pub fn test(report: &mut Report) {
    match Tools::install() {
        Ok(tools) => take_steps(&tools, &[], report),
        Err(why) => report.skip(&format!("deploy/, checked with its tools: {why:#}")),
    }
}

/// All steps, or those whose names contain one of `filter`.
fn take_steps(tools: &Tools, filter: &[String], report: &mut Report) {
    for (name, step) in STEPS {
        if !filter.is_empty() && !filter.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        match step(tools) {
            Ok(()) => {
                println!("{name} ... ok");
                report.passed += 1;
            }
            Err(error) => {
                println!("{name} ... FAILED\n{error:#}");
                report.failed += 1;
            }
        }
    }
}

fn template(tools: &Tools, set: &[&str]) -> Result<String> {
    let mut helm = Command::new(&tools.helm);
    helm.args(["template", "portolan", CHART, "--namespace", "portolan", "--skip-tests"]);
    for value in set {
        helm.args(["--set", value]);
    }
    shell::output(helm.current_dir(tree::root()))
}

fn lint(tools: &Tools) -> Result<()> {
    let mut helm = Command::new(&tools.helm);
    shell::quiet(helm.args(["lint", "--strict", CHART]).current_dir(tree::root()))?;
    values::check()
}

fn rendered(tools: &Tools) -> Result<()> {
    let committed = fs::read_to_string(tree::root().join(RENDERED)).context(RENDERED)?;
    if committed != format!("{HEAD}{}", template(tools, &[])?) {
        bail!("{RENDERED} differs from the chart's output: run `cargo xtask deploy --write`");
    }
    let mut kubectl = Command::new(&tools.kubectl);
    let built =
        shell::output(kubectl.args(["kustomize", "deploy/kubernetes"]).current_dir(tree::root()))?;
    if !built.contains("kind: DaemonSet") || !built.contains("kind: Namespace") {
        bail!("the Kustomize base lacks the DaemonSet or the namespace");
    }
    Ok(())
}

/// The golden file is what the agent serves: a test of the agent compares them.
fn openapi(tools: &Tools) -> Result<()> {
    let document = "agent/crates/server/golden/openapi.json";
    shell::quiet(Command::new(&tools.openapi).arg(document).current_dir(tree::root()))
}

/// Every case, and Kubernetes' schemas of all objects in all of them.
fn values_of_chart(tools: &Tools) -> Result<()> {
    let renderings = chart::check(tools)?;
    // Kinds of operators are not Kubernetes' own.
    let foreign = ["monitoring.coreos.com", "security.openshift.io"];
    let is_own = |part: &&str| !foreign.iter().any(|group| part.contains(group));
    let objects: BTreeSet<&str> =
        renderings.iter().flat_map(|text| text.split("---\n")).filter(is_own).collect();
    let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    fs::write(file.path(), objects.into_iter().collect::<Vec<_>>().join("---\n"))?;
    shell::quiet(Command::new(&tools.validate).arg("--strict").arg(file.path()))
}

/// The golden file is what `portolan policy generate --for kubernetes` writes: a test of `cli` compares
/// them.
fn policies(tools: &Tools) -> Result<()> {
    let file = "agent/crates/cli/golden/network-policies.yaml";
    let mut validate = Command::new(&tools.validate);
    shell::quiet(validate.args(["--strict", file]).current_dir(tree::root()))
}

/// One table in the code, four files that must agree.
fn capabilities(tools: &Tools) -> Result<()> {
    let mut agent = Command::new(build::compile(Checks::On)?);
    agent.args(["agent", "--show-privileges", "--output", "json"]);
    let shown: Value = serde_json::from_str(&shell::output(&mut agent)?)?;
    let listed = shown["start"].as_array().context("no list of capabilities")?;
    let mut asked: Vec<String> = listed
        .iter()
        .filter_map(|name| Some(name.as_str()?.strip_prefix("CAP_")?.to_owned()))
        .collect();
    asked.sort();
    let old: Vec<String> =
        asked.iter().filter(|name| !["BPF", "PERFMON"].contains(&name.as_str())).cloned().collect();
    let read = |path: &str| fs::read_to_string(tree::root().join(path)).context(path.to_owned());
    let places = [
        ("the chart", in_manifest(&template(tools, &[])?), &asked),
        ("the chart with oldRuntime", in_manifest(&template(tools, &["oldRuntime=true"])?), &old),
        (
            "docker-compose.yml",
            in_list(&read("deploy/compose/docker-compose.yml")?, "cap_add:"),
            &asked,
        ),
        ("old-docker.yml", in_list(&read("deploy/compose/old-docker.yml")?, "cap_add:"), &old),
        ("the unit", in_unit(&read("deploy/systemd/portolan.service")?), &asked),
    ];
    for (place, found, wanted) in places {
        if found != *wanted {
            bail!("{place} grants {found:?}, but the agent requires {wanted:?}");
        }
    }
    Ok(())
}

/// The items below `add:`.
fn in_manifest(text: &str) -> Vec<String> {
    let below = text.lines().skip_while(|line| line.trim() != "add:").skip(1);
    let items = below.map_while(|line| line.trim().strip_prefix("- ").map(str::to_owned));
    sorted(items)
}

/// The items of `key: [A, B]`.
fn in_list(text: &str, key: &str) -> Vec<String> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap_or_default();
    sorted(line.trim().trim_matches(['[', ']']).split(", ").map(str::to_owned))
}

/// The value of `AmbientCapabilities=`.
fn in_unit(text: &str) -> Vec<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("AmbientCapabilities="));
    sorted(line.unwrap_or_default().split(' ').map(|name| name.replacen("CAP_", "", 1)))
}

fn sorted(items: impl Iterator<Item = String>) -> Vec<String> {
    let mut items: Vec<String> = items.collect();
    items.sort();
    items
}

fn dockerfiles(tools: &Tools) -> Result<()> {
    let mut hadolint = Command::new(&tools.hadolint);
    hadolint.args(["deploy/image/Dockerfile", "deploy/image/Dockerfile.binary"]);
    shell::quiet(hadolint.current_dir(tree::root()))
}

fn systemd(_: &Tools) -> Result<()> {
    let unit = tree::root().join("deploy/systemd/portolan.service");
    let exposure = exposure(&unit)?;
    if exposure > HIGHEST_EXPOSURE {
        bail!(
            "the unit's exposure is {exposure}, above {HIGHEST_EXPOSURE}: see `systemd-analyze security --offline=true`"
        );
    }
    // It complains of a program that is not installed here, and of nothing else.
    let output = Command::new("systemd-analyze").arg("verify").arg(&unit).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let trouble = stderr.lines().filter(|line| line.contains("portolan"));
    let trouble: Vec<&str> = trouble
        .filter(|line| !line.contains("is not executable") && !line.contains("man portolan"))
        .collect();
    if !trouble.is_empty() {
        bail!("{}", trouble.join("\n"));
    }
    Ok(())
}

/// The figure at the end of systemd's assessment.
fn exposure(unit: &Path) -> Result<f64> {
    let mut analyze = Command::new("systemd-analyze");
    let text = shell::output(analyze.args(["security", "--offline=true", "--no-pager"]).arg(unit))?;
    let last = text.lines().rev().find(|line| line.contains("exposure level")).unwrap_or_default();
    let figure = last.split_whitespace().find_map(|word| word.parse().ok());
    figure.with_context(|| format!("systemd-analyze prints no figure: {last}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_found_in_every_form() {
        let manifest = "capabilities:\n  drop: [ALL]\n  add:\n    - BPF\n    - ADMIN\n  x: y\n";
        assert_eq!(in_manifest(manifest), ["ADMIN", "BPF"]);
        assert_eq!(in_list("  cap_add: [BPF, ADMIN]\n", "cap_add:"), ["ADMIN", "BPF"]);
        assert_eq!(in_unit("AmbientCapabilities=CAP_BPF CAP_ADMIN\n"), ["ADMIN", "BPF"]);
    }
}
