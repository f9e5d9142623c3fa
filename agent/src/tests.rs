//! Claims about crates that do not depend on each other.

mod documents;

/// A package of the workspace and the packages that it may use: data flows one way
/// (docs/architecture.md). Test code may use more.
const LAYERS: &[(&str, &[&str])] = &[
    ("agent-common", &[]),
    ("api-types", &["notation"]),
    ("client", &["api-types"]),
    ("cli", &["api-types", "client", "linux", "notation", "recorded"]),
    ("recorded", &["agent-common", "api-types", "model", "server"]),
    ("tui", &["api-types", "cli", "client", "notation"]),
    ("linux", &["agent-common"]),
    ("loader", &["agent-common"]),
    ("notation", &[]),
    ("model", &["agent-common", "notation"]),
    ("discovery", &["agent-common", "linux", "model"]),
    ("telemetry", &["agent-common", "model"]),
    ("server", &["agent-common", "api-types", "model", "notation", "telemetry"]),
    (
        "agent",
        &[
            "agent-common",
            "api-types",
            "cli",
            "server",
            "discovery",
            "linux",
            "loader",
            "model",
            "notation",
            "telemetry",
            "tui",
        ],
    ),
    ("agent-ebpf", &["agent-common"]),
];

/// The same for what only developers run.
const TOOLS: &[(&str, &[&str])] = &[
    (
        "agent-fuzz",
        &[
            "agent",
            "agent-common",
            "api-types",
            "cli",
            "discovery",
            "linux",
            "loader",
            "model",
            "recorded",
            "server",
        ],
    ),
    ("portolan-dashboards", &["portolan-kit"]),
    ("xtask", &["portolan-kit"]),
    ("portolan-bench", &["loader", "portolan-kit"]),
    ("portolan-demo", &["portolan-dashboards", "portolan-kit"]),
    ("portolan-kit", &[]),
    ("portolan-package", &["portolan-kit"]),
    ("portolan-soak", &["portolan-bench", "portolan-kit"]),
    ("portolan-vm", &["portolan-kit"]),
];

/// A package from the registry, and the only packages of the workspace that may use it.
const KEPT_TO: &[(&str, &[&str])] = &[
    ("aya", &["loader"]),
    ("aya-log", &["loader"]),
    ("aya-obj", &["loader"]),
    ("prometheus-client", &["telemetry"]),
    ("ratatui-core", &["tui"]),
];

/// Libraries that would give `model` side effects.
const IMPURE: &[&str] = &["axum", "clap", "libc", "tokio", "tracing"];

/// Dependencies of each package of the workspace, without those of tests.
fn dependencies() -> Vec<(String, Vec<String>)> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .args(["--manifest-path", manifest])
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().expect("packages").iter();
    packages
        .map(|package| {
            let all = package["dependencies"].as_array().expect("dependencies").iter();
            let used = all.filter(|one| one["kind"] != "dev").map(|one| text(&one["name"]));
            (text(&package["name"]), used.collect())
        })
        .collect()
}

#[test]
fn packages_use_only_what_their_layer_may_use() {
    let packages = dependencies();
    for (name, used) in &packages {
        let ours = used.iter().filter(|other| packages.iter().any(|(name, _)| name == *other));
        let layer = LAYERS.iter().chain(TOOLS).find(|(layer, _)| layer == name);
        let (_, allowed) =
            layer.unwrap_or_else(|| panic!("{name} is in no layer: add it to LAYERS or TOOLS"));
        for other in ours {
            assert!(allowed.contains(&other.as_str()), "{name} must not depend on {other}");
        }
        for (library, keepers) in KEPT_TO {
            let keeps = keepers.contains(&name.as_str());
            assert!(keeps || !used.iter().any(|other| other == library), "{name} uses {library}");
        }
    }
    for (layer, _) in LAYERS.iter().chain(TOOLS) {
        assert!(packages.iter().any(|(name, _)| name == layer), "there is no package {layer}");
    }
    let (_, model) = packages.iter().find(|(name, _)| name == "model").expect("model");
    assert!(!model.iter().any(|library| IMPURE.contains(&library.as_str())), "{model:?}");
}
