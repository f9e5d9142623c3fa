//! Files, variables and flags: valid ones, and the errors of invalid ones.

use std::collections::BTreeSet;

use super::*;

fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("writing the file");
    (folder, path)
}

fn load_file(name: &str, text: &str) -> Result<Loaded, String> {
    let (folder, path) = file(name, text);
    let folder = format!("{}/", folder.path().display());
    load(Some(&path), [], &[]).map_err(|error| error.to_string().replace(&folder, ""))
}

fn variable(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

const TOML: &str = r#"
pin = true
internal_ranges = ["10.0.0.0/8", "192.0.2.7"]
collection_interval = "250ms"
[web]
listen_address = "0.0.0.0:9999"
[log]
level = "debug"
format = "json"
[limits]
edges = 4096
"#;

const YAML: &str = "
pin: true
internal_ranges:
  - 10.0.0.0/8
  - 192.0.2.7
collection_interval: 250ms
web:
  listen_address: 0.0.0.0:9999
log: {level: debug, format: json}
limits:
  edges: 4096
";

#[test]
fn toml_and_yaml_say_the_same() {
    let toml = load_file("a.toml", TOML).expect("valid").config;
    let yaml = load_file("a.yaml", YAML).expect("valid").config;
    assert_eq!(toml, yaml);
    let everywhere = Listen::Address(SocketAddr::from(([0, 0, 0, 0], 9999)));
    assert_eq!(toml.web.listen_address, everywhere);
    assert_eq!(toml.log, Log { level: LogLevel::Debug, format: LogFormat::Json });
    assert_eq!(toml.limits, Limits { edges: Some(4096), ..Limits::default() });
    assert_eq!(toml.collection_interval, Duration::from_millis(250));
    assert!(toml.pin);
    let ranges: Vec<String> = toml.internal_ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.0.0.0/8", "192.0.2.7/32"]);
}

const SEGMENTS: &str = r#"
[segments]
allow = [
  "frontend -> backend",
  "backend -> database",
  "monitoring -> *",
]
[segments.frontend]
networks = ["172.20.0.0/16"]
[segments.backend]
networks = ["172.21.0.0/16"]
namespaces = ["shop"]
[segments.database]
networks = ["172.22.0.0/16", "8.8.0.0/16"]
services = ["postgres"]
[segments.monitoring]
networks = ["172.23.0.0/16"]
"#;

const SEGMENTS_YAML: &str = "
segments:
  allow:
    - frontend -> backend
    - backend -> database
    - monitoring -> *
  frontend:
    networks: [172.20.0.0/16]
  backend:
    networks: [172.21.0.0/16]
    namespaces: [shop]
  database:
    networks:
      - 172.22.0.0/16
      - 8.8.0.0/16
    services: [postgres]
  monitoring:
    networks: [172.23.0.0/16]
";

#[test]
fn segments_are_sections_of_their_own() {
    let toml = load_file("a.toml", SEGMENTS).expect("valid").config;
    let yaml = load_file("a.yaml", SEGMENTS_YAML).expect("valid").config;
    let shown = |config: &Config| serde_json::to_value(&*config.segments).expect("JSON");
    assert_eq!(shown(&toml), shown(&yaml));
    assert_eq!(
        shown(&toml)["database"],
        serde_json::json!({
            "networks": ["172.22.0.0/16", "8.8.0.0/16"], "namespaces": [], "services": ["postgres"],
        })
    );
    let more: Vec<String> = toml
        .kernel_ranges()
        .iter()
        .filter(|range| !toml.internal_ranges.contains(range))
        .map(ToString::to_string)
        .collect();
    assert_eq!(more, ["8.8.0.0/16"], "the others are internal already");
}

#[test]
fn contradictions_between_segments_are_reported_with_both_lines() {
    let check = |name: &str, more: &str, expected: &str| {
        let text = if name == "a.toml" { SEGMENTS } else { SEGMENTS_YAML };
        let error = load_file(name, &format!("{text}{more}")).expect_err("refused");
        assert_eq!(error, expected);
    };
    check(
        "a.toml",
        "[segments.other]\nnetworks = [\n  \"10.0.0.0/8\",\n  \"172.20.0.0/16\",\n]\n",
        "a.toml:21: puts network 172.20.0.0/16 into the segment `other`, but it is in `frontend` already; keep one of the two; the other value is at a.toml:9",
    );
    check(
        "a.yaml",
        "  other:\n    networks:\n      - 10.0.0.0/8\n      - 172.22.0.0/16\n",
        "a.yaml:22: puts network 172.22.0.0/16 into the segment `other`, but it is in `database` already; keep one of the two; the other value is at a.yaml:14",
    );
    check(
        "a.yaml",
        "  deny:\n    - monitoring -> frontend\n    - '* -> backend'\n",
        "a.yaml:21: denies `monitoring -> backend` by the rule `* -> backend`, but an equally exact rule says the opposite; keep one of the two; the other value is at a.yaml:6",
    );
}

#[test]
fn tls_is_required_only_of_who_reads_responses() {
    let required = format!(
        "{}\n",
        SEGMENTS.replace("[segments]", "[segments]\nrequire_tls = \"* -> database\"")
    );
    assert_eq!(
        load_file("a.toml", &required).expect_err("refused"),
        "a.toml:3: `segments.require_tls` needs `responses = true` (and `requests`, which is on by default): without reading responses the agent does not know which connections are encrypted"
    );
    let config =
        load_file("a.toml", &format!("responses = true\n{required}")).expect("valid").config;
    assert!(segments::text(&config.segments).contains("require_tls = [\"* -> database\"]"));
    let off = format!("responses = true\nrequests = false\n{required}");
    assert!(load_file("a.toml", &off).expect_err("refused").contains("segments.require_tls"));
}

#[test]
fn errors_in_segments_have_their_position_and_the_fix() {
    let check = |text: &str, expected: &str| {
        assert_eq!(load_file("a.toml", text).expect_err("refused"), expected, "{text}");
    };
    check(
        "[segments]\nallow = [\n\"a -> b\"\n]\n[segments.a]\nservices = [\"x\"]\n",
        "a.toml:3: this rule names the segment `b`, which is not declared; declare it with [segments.b], or choose one of a, outside, *",
    );
    check(
        "[segments.a]\nnetwork = [\"10.0.0.0/8\"]\n",
        "a.toml:2: unknown key `segments.a.network`; did you mean `segments.a.networks`?",
    );
    check(
        "[segments.a]\nnetworks = [\"10.0.0.0/8\",\n\"10.0.0.0/99\"]\n",
        "a.toml:3: `segments.a.networks` contains \"10.0.0.0/99\"; write networks like 10.0.0.0/8 or fd00::/8",
    );
    check(
        "[segments]\nallow = [\"a => b\"]\n",
        "a.toml:2: `segments.allow` contains \"a => b\"; write rules like \"frontend -> backend\"",
    );
    check(
        "[segments.outside]\nservices = [\"a\"]\n",
        "a.toml:2: `segments.outside.services` is of a segment that cannot be called `outside`; choose letters, digits, - and _, and another name than allow, deny, require_tls or outside",
    );
    check(
        "[segments]\nallowed = [\"a -> b\"]\n",
        "a.toml:2: unknown key `segments.allowed`; did you mean `segments.allow`?",
    );
}

#[test]
fn weights_of_backends_are_checked() {
    let weights = |text: &str| {
        let loaded = load_file("a.toml", &format!("[balance]\nweights = {text}\n"))?;
        Ok::<_, String>(loaded.config.balance.weights.declared())
    };
    assert_eq!(
        weights("[\"10.0.0.1:80 = 10\", \"[fd00::1]:80=2\", \"10.0.0.2 = 1\"]"),
        Ok(vec!["10.0.0.1:80 = 10".into(), "10.0.0.2 = 1".into(), "[fd00::1]:80 = 2".into()])
    );
    assert!(weights("[\"api = 10\"]").expect_err("refused").contains("write weights like"));
    assert!(
        weights("[\"10.0.0.1 = 1\", \"10.0.0.1 = 2\"]")
            .expect_err("refused")
            .contains("two weights")
    );
}

#[test]
fn known_findings_can_be_left_out_of_a_check() {
    let check = |config: Config, expected: &[&str]| {
        let skips: Vec<String> = config.check.skip.iter().map(ToString::to_string).collect();
        assert_eq!(skips, expected);
    };
    let toml = "check.skip = [\"po301 = legacy.js\", \"PP201=a, b → c:1\", \"PS410\"]\n";
    let expected = ["PO301=legacy.js", "PP201=a, b → c:1", "PS410"];
    check(load_file("a.toml", toml).expect("valid").config, &expected);
    let env = variable("PORTOLAN_CHECK_SKIP", "PO301=legacy.js, PS410");
    check(load(None, [env], &[]).expect("valid").config, &["PO301=legacy.js", "PS410"]);
    check(Config::default(), &[]);
}

#[test]
fn hooks_and_fields_can_be_disabled() {
    let load = |text: &str| load_file("a.toml", text).map(|loaded| loaded.config);
    let config = load(
        "disable_hooks = [\"iterate_sockets\", \"way:sk_data_ready\"]\ndisable_fields = [\"drops\"]\n",
    );
    let config = config.expect("valid");
    assert_eq!(config.disable_hooks, ["iterate_sockets", "way:sk_data_ready"]);
    assert_eq!(config.disable_fields, ["drops"]);
    assert!(load("disable_hooks = [\"a b\"]\n").is_err());
    assert!(load("disable_fields = [\"way:drops\"]\n").is_err());
}

#[test]
fn a_renamed_key_is_refused_with_its_new_name() {
    let check = |text: &str, expected: &str| {
        assert_eq!(load_file("a.toml", text).expect_err("refused"), expected);
    };
    check(
        "pin = true\nsweep_interval = \"1s\"\n",
        "a.toml:2: `sweep_interval` has been renamed: use `collection_interval`",
    );
    check(
        "masked = [\"drops\"]\n",
        "a.toml:1: `masked` has been renamed: use `disable_hooks` or `disable_fields`",
    );
    let old = variable("PORTOLAN_SWEEP_INTERVAL", "1s");
    let error = load(None, [old], &[]).expect_err("refused").to_string();
    assert_eq!(
        error,
        "environment variable PORTOLAN_SWEEP_INTERVAL: it has been renamed: use PORTOLAN_COLLECTION_INTERVAL"
    );
    for renamed in RENAMED {
        assert!(settings::find(renamed.key).is_none(), "{renamed:?}");
        assert!(renamed.new.iter().all(|new| settings::find(new).is_some()), "{renamed:?}");
    }
}

#[test]
fn an_empty_file_is_the_default() {
    for name in ["a.toml", "a.yaml"] {
        let loaded = load_file(name, "# nothing yet\n").expect("valid");
        assert_eq!(loaded.config, Config::default());
        assert!(loaded.origins.is_empty());
    }
}

#[test]
fn flags_win_over_environment_over_file_over_default() {
    let (_folder, path) = file("a.toml", "[web]\nlisten_address = \"127.0.0.1:1001\"\n");
    let setting = settings::find("web.listen_address").expect("known");
    let env = variable("PORTOLAN_WEB_LISTEN_ADDRESS", "127.0.0.1:1002");
    let flag = [(setting, Given::Text("127.0.0.1:1003".into()))];
    let check = |file, env, flags: &[(&'static Setting, Given)], port, origin: &str| {
        let loaded = load(file, env, flags).expect("valid");
        let address = loaded.config.web.listen_address.address();
        assert_eq!(address.map(|address| address.port()), Some(port));
        assert!(loaded.origin(setting.key).ends_with(origin), "{}", loaded.origin(setting.key));
    };
    check(None, vec![], &[], 10062, "default");
    check(Some(path.as_path()), vec![], &[], 1001, "a.toml:2");
    check(Some(path.as_path()), vec![env.clone()], &[], 1002, "PORTOLAN_WEB_LISTEN_ADDRESS");
    check(Some(path.as_path()), vec![env], &flag, 1003, "flag --web.listen-address");
}

#[test]
fn errors_have_their_position_and_the_fix() {
    let check = |name: &str, text: &str, expected: &str| {
        assert_eq!(load_file(name, text).expect_err("refused"), expected, "{text}");
    };
    check(
        "a.toml",
        "pin = true\n[web]\nlisten_adress = \"x\"\n",
        "a.toml:3: unknown key `web.listen_adress`; did you mean `web.listen_address`?",
    );
    check(
        "a.yaml",
        "pin: true\nweb:\n  listen-address: x\n",
        "a.yaml:3: unknown key `web.listen-address`; did you mean `web.listen_address`?",
    );
    check("a.toml", "colour = 1\n", "a.toml:1: unknown key `colour`");
    check("a.toml", "\n[metrics]\nfoo = 1\n", "a.toml:3: unknown key `metrics.foo`");
    check(
        "a.toml",
        "[log]\nlevel = \"loud\"\n",
        "a.toml:2: `log.level` is \"loud\"; choose one of error, warn, info, debug, trace",
    );
    check(
        "a.yaml",
        "web:\n  listen_address: localhost\n",
        "a.yaml:2: `web.listen_address` is \"localhost\"; write an address and a port, like 127.0.0.1:10062 or [::1]:10062, or \"unix\" for the Unix socket only",
    );
    check(
        "a.toml",
        "[web]\nlisten_address = \"unix\"\nconfig_file = \"web.yml\"\n",
        "a.toml:3: `web.config_file` is for an address, and `web.listen_address` is \"unix\": the mode and group of the Unix socket decide who reads (control_group); remove one of the two",
    );
    for path in ["portolan", "/a//b", "/..", "/a b", "/{x}", "/a?b"] {
        check(
            "a.toml",
            &format!("web.external_path = \"{path}\"\n"),
            &format!(
                "a.toml:1: `web.external_path` is \"{path}\"; write a path of letters, digits and - . _ ~, like /portolan"
            ),
        );
    }
    for host in ["http://a.example", "a.example:10062", "a.*", "bücher.example"] {
        check(
            "a.toml",
            &format!("web.allowed_hosts = [\"portolan\", \"{host}\"]\n"),
            &format!(
                "a.toml:1: `web.allowed_hosts` contains \"{host}\"; write a name without scheme and port, like portolan.example, *.example for all names below it, or * for any"
            ),
        );
    }
    for url in ["docs", "ftp://a/docs", "https://", "https://a b", "https://a/docs?x"] {
        check(
            "a.toml",
            &format!("docs_url = \"{url}\"\n"),
            &format!(
                "a.toml:1: `docs_url` is \"{url}\"; write a URL like https://docs.example/portolan/docs"
            ),
        );
    }
    check(
        "a.toml",
        "[check]\nskip = [\"PO301\", \"legacy.js\"]\n",
        "a.toml:2: `check.skip` contains \"legacy.js\": \"legacy.js\" is not a code; `portolan check --list` lists them",
    );
    check(
        "a.yaml",
        "check:\n  skip: [PO301=]\n",
        "a.yaml:2: `check.skip` contains \"PO301=\": no subject after \"=\"; write PO301, or PO301=SUBJECT",
    );
    check("a.toml", "pin = 3\n", "a.toml:1: `pin` is \"3\"; write true or false");
    check(
        "a.toml",
        "collection_interval = \"5\"\n",
        "a.toml:1: `collection_interval` is \"5\"; write a number with a unit, like 500ms, 90s, 15m, 2h or 7d",
    );
    check(
        "a.toml",
        "collection_interval = \"0s\"\n",
        "a.toml:1: `collection_interval` is \"0s\"; choose between 100ms and 1m",
    );
    check(
        "a.yaml",
        "internal_ranges:\n  - 10.0.0.0/8\n  - 10.0.0.0/99\n",
        "a.yaml:1: `internal_ranges` contains \"10.0.0.0/99\"; write networks like 10.0.0.0/8 or fd00::/8",
    );
    check("a.toml", "pin = \n", "a.toml:1: string values must be quoted, expected literal string");
    check("a.ini", "", "a.ini: unknown format; name the file .toml, .yaml or .yml");
}

#[test]
fn more_ranges_than_the_kernel_half_can_hold_are_refused() {
    let ranges: Vec<String> = (0..33).map(|i| format!("\"10.{i}.0.0/16\"")).collect();
    let error = load_file("a.toml", &format!("internal_ranges = [{}]", ranges.join(",")));
    let error = error.expect_err("refused");
    assert!(error.contains("33 networks; at most 32"), "{error}");
}

#[test]
fn a_foreign_variable_is_ignored_but_a_misspelt_one_is_reported() {
    let loaded = load(
        None,
        [
            variable("PORTOLAN_PORT", "tcp://10.0.0.1:10062"),
            variable("PORTOLAN_PORT_10062_TCP_ADDR", "10.0.0.1"),
            variable("PORTOLAN_WEB_SERVICE_HOST", "10.0.0.1"),
            variable("PORTOLAN_WEB_SERVICE_PORT_METRICS", "10062"),
            variable("PORTOLAN_URL", "http://127.0.0.1:10062"),
            variable("PORTOLAN_LOG_LEVLE", "debug"),
            variable("PORTOLAN_COLOUR", "red"),
            variable("PORTOLAN_CONFIG", "/x.toml"),
            variable("HOME", "/"),
        ],
        &[],
    )
    .expect("valid");
    assert_eq!(
        loaded.warnings,
        [
            "the environment variable PORTOLAN_COLOUR is unknown and has no effect",
            "the environment variable PORTOLAN_LOG_LEVLE is unknown and has no effect; did you mean `PORTOLAN_LOG_LEVEL`?",
        ]
    );
}

#[test]
fn an_empty_variable_does_not_empty_a_list_that_has_a_default() {
    let check = |name: &str, expected: &str| {
        let error = load(None, [variable(name, "")], &[]).expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(
        "PORTOLAN_INTERNAL_RANGES",
        "`internal_ranges` is empty; write networks like 10.0.0.0/8 or fd00::/8, or leave it out for the default",
    );
    check("PORTOLAN_NAMES_CRI", "`names.cri` is empty; write paths of sockets, or off");
    check("PORTOLAN_OTLP_ENDPOINT", "`otlp.endpoint`");
    let loaded = load_file("a.toml", "internal_ranges = []\n").expect("a file can say none");
    assert!(loaded.config.internal_ranges.is_empty());
    // Lists without a default are empty anyway.
    assert!(load(None, [variable("PORTOLAN_NAMES_RULES", "")], &[]).is_ok());
}

#[test]
fn yaml_errors_are_plain_sentences() {
    let check = |text: &str, expected: &str| {
        assert_eq!(load_file("a.yaml", text).expect_err("refused"), expected, "{text}");
    };
    check("pin: true\npin: false\n", "a.yaml:2: the key `pin` is there twice; keep one");
    check("- pin\n", "a.yaml:1: the file must be a mapping of keys to values");
}

/// `portolan config show` and the files come from the table, the agent from `Config`.
#[test]
fn every_key_of_the_configuration_is_a_setting_and_the_reverse() {
    let config = serde_json::to_value(Config::default()).expect("JSON");
    let sections = config.as_object().expect("an object").iter();
    // Segments are named by the operator, so they have sections instead of settings.
    let keys: BTreeSet<String> = sections
        .filter(|(section, _)| *section != "segments")
        .flat_map(|(section, value)| match value.as_object() {
            Some(keys) => keys.keys().map(|key| format!("{section}.{key}")).collect(),
            None => vec![section.clone()],
        })
        .collect();
    let settings: BTreeSet<String> = SETTINGS.iter().map(|s| s.key.to_owned()).collect();
    let without_row: Vec<_> = keys.difference(&settings).collect();
    assert!(without_row.is_empty(), "add a row to agent/src/config/settings.rs: {without_row:?}");
    let without_field: Vec<_> = settings.difference(&keys).collect();
    assert!(
        without_field.is_empty(),
        "add a field to `Config`, named by the key: {without_field:?}"
    );
}

#[test]
fn a_file_that_cannot_be_read_names_the_fix() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.toml");
    std::fs::write(&path, [b'#', 0xff]).expect("written");
    let error = load(Some(&path), [], &[]).expect_err("refused").to_string();
    assert!(error.ends_with("; save it as UTF-8"), "{error}");
    let error = load(Some(Path::new("/nonexistent/a.toml")), [], &[]).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "cannot read the configuration file /nonexistent/a.toml: No such file or directory (os error 2); check the path given with --config"
    );
}
