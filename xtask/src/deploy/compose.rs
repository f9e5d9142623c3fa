//! The compose files: what they ask for is in `.env.example`, and what they mount exists.
//!
//! `docker compose config` says the same and more, but is a download of 20 MB: docs/deploy.md has its
//! record.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use portolan_kit::{shell, tree};
use serde_json::Value;

const FOLDER: &str = "deploy/compose";
const EXAMPLE: &str = ".env.example";
/// The file that `docker compose up` takes by itself: nothing may have to be set for it.
const ALONE: &str = "docker-compose.yml";
const FILES: [&str; 3] = [ALONE, "old-docker.yml", "monitoring.yml"];

pub fn check() -> Result<()> {
    let read = |name: &str| {
        let path = Path::new(FOLDER).join(name);
        fs::read_to_string(tree::root().join(&path)).with_context(|| tree::shown(&path))
    };
    let example = read(EXAMPLE)?;
    let mut problems = Vec::new();
    for name in FILES {
        let text = read(name)?;
        let Variables { all, required } = variables(&text);
        let missing = all.iter().filter(|variable| !sets(&example, variable));
        problems.extend(missing.map(|variable| format!("{name}: {variable} is not in {EXAMPLE}")));
        if name == ALONE && !required.is_empty() {
            problems.push(format!("{name}: {} must not be required", required.join(", ")));
        }
        let file: Value = serde_saphyr::from_str(&text).context(name)?;
        let mounts = relative_mounts(&file);
        let gone = mounts.iter().filter(|path| !tree::root().join(FOLDER).join(path).exists());
        problems.extend(gone.map(|path| format!("{name}: {path} does not exist")));
    }
    problems.extend(receivers(&read("alertmanager.sh")?)?);
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Variables {
    all: Vec<String>,
    required: Vec<String>,
}

/// `${NAME}`, `${NAME:-default}`, `${NAME:?required}`; `$$` is a dollar sign.
fn variables(text: &str) -> Variables {
    let mut found = Variables::default();
    for (at, _) in text.match_indices("${") {
        let rest = text.get(at + 2..).unwrap_or_default();
        let name: String =
            rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        if text.get(..at).is_some_and(|before| before.ends_with('$')) {
            continue;
        }
        if rest.get(name.len()..).is_some_and(|rest| rest.starts_with(":?")) {
            found.required.push(name.clone());
        }
        found.all.push(name);
    }
    found
}

fn sets(example: &str, variable: &str) -> bool {
    example.lines().any(|line| line.split_once('=').is_some_and(|(name, _)| name == variable))
}

/// What services mount from beside the file.
fn relative_mounts(file: &Value) -> Vec<String> {
    let services = file["services"].as_object().into_iter().flat_map(|all| all.values());
    let mounts = services.flat_map(|one| one["volumes"].as_array().into_iter().flatten());
    let sources = mounts.filter_map(|mount| mount.as_str()?.split(':').next());
    sources.filter(|source| source.starts_with('.')).map(str::to_owned).collect()
}

/// Runs the start script with and without a webhook, in place of the container. The URL has what `sed`
/// and a shell could trip over.
fn receivers(script: &str) -> Result<Vec<String>> {
    const URL: &str = "https://hooks.invalid/x?a=1&b=2|c'd";
    let folder = tempfile::tempdir().context("making a folder for Alertmanager's configuration")?;
    let shipped = tree::root().join("dashboards/prometheus/alertmanager.yml");
    let script = script
        .replace("/etc/alertmanager/portolan.yml", &shipped.display().to_string())
        .replace("/tmp/", &format!("{}/", folder.path().display()))
        .replace("exec /bin/alertmanager", "exec true");
    let mut problems = Vec::new();
    for url in ["", URL] {
        shell::quiet(Command::new("sh").args(["-c", &script]).env("ALERT_WEBHOOK", url))?;
        let text = fs::read_to_string(folder.path().join("alertmanager.yml"))?;
        let config: BTreeMap<String, Value> = serde_saphyr::from_str(&text)?;
        let receivers = config.get("receivers").and_then(Value::as_array);
        let on_call = receivers
            .into_iter()
            .flatten()
            .find(|receiver| receiver["name"] == "on-call")
            .context("alertmanager.yml has no receiver on-call")?;
        let file = &on_call["webhook_configs"][0]["url_file"];
        let written = file.as_str().map(fs::read_to_string).transpose()?.unwrap_or_default();
        if written != url || on_call["webhook_configs"].is_null() != url.is_empty() {
            problems.push(format!("alertmanager.sh: with the webhook `{url}` it makes {on_call}"));
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_found_with_those_that_are_required() {
        let found = variables("a: ${A:-x} ${B}\nb: ${C:?set it} $${D}\n");
        assert_eq!(found.all, ["A", "B", "C"]);
        assert_eq!(found.required, ["C"]);
    }

    #[test]
    fn an_example_has_names_before_equals_signs() {
        assert!(sets("# A\nA=\nB=C\n", "A"));
        assert!(!sets("# A\nB=A\n", "A"));
    }

    #[test]
    fn mounts_beside_the_file_are_found() {
        let file = json!({"services": {
            "a": {"volumes": ["./x.yml:/x.yml:ro", "data:/data", "/run/y:/y"]},
            "b": {"volumes": ["../z:/z"]},
            "c": {},
        }});
        assert_eq!(relative_mounts(&file), ["./x.yml", "../z"]);
    }
}
