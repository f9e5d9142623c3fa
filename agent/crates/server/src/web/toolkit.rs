//! The web configuration files that exporter-toolkit itself is tested with, from Debian's package
//! of its newest version: those that it calls good are accepted, those that it calls bad refused.

use std::fs;
use std::path::{Path, PathBuf};

use portolan_kit::{apt, suites::Suite};

use super::*;

const PACKAGE: &str = "golang-github-prometheus-exporter-toolkit-dev";
const TESTDATA: &str = "usr/share/gocode/src/github.com/prometheus/exporter-toolkit/web/testdata";

/// Files whose names do not say it, and what exporter-toolkit's own tests expect.
const UNNAMED: [(&str, bool); 5] = [
    ("web_config_empty.yml", true),
    ("web_config_junk.yml", false),
    ("web_config_junk_key.yml", false),
    ("web_config_rate_limiter_nonblocking.yaml", true),
    ("web_config_rate_limiter_one_second.yaml", true),
];

/// Called bad, and accepted by exporter-toolkit as well.
const ACCEPTED: [(&str, &str); 2] = [
    ("web_config_auth_client_san.bad.yaml", "it is the client's certificate that is refused"),
    (
        "web_config_auth_clientCAs_missing.bad.yml",
        "no test of exporter-toolkit uses it; web_config_noAuth.good.blocking.yml says the same",
    ),
];

/// The folder with the files, fetched once; `None` without Debian's tools, except in CI.
fn testdata() -> Option<PathBuf> {
    if !apt::is_here() {
        assert!(std::env::var_os("CI").is_none(), "CI has Debian's package tools");
        println!("skipped: this machine has no apt to fetch {PACKAGE} with");
        return None;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/exporter-toolkit");
    let unpacked = root.join("unpacked");
    if !unpacked.exists() {
        fs::create_dir_all(&root).unwrap();
        Suite::open("sid", "amd64", &root).unwrap().unpack(&[PACKAGE], &unpacked).unwrap();
    }
    Some(unpacked.join(TESTDATA))
}

fn rules(path: &Path) -> anyhow::Result<Rules> {
    Rules::read(path, &Arc::default(), &Arc::new(Gate::new()?)).map(|(rules, _)| rules)
}

#[tokio::test]
async fn files_of_exporter_toolkit_are_judged_as_it_judges_them() {
    let Some(folder) = testdata() else { return };
    let (mut good, mut bad) = (0, 0);
    let mut wrong = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !path.extension().is_some_and(|kind| kind == "yml" || kind == "yaml") {
            continue;
        }
        let unnamed = UNNAMED.iter().find(|(file, _)| *file == name).map(|(_, is_good)| *is_good);
        let is_good = unnamed.unwrap_or_else(|| {
            assert!(name.contains(".good.") != name.contains(".bad."), "unknown: {name}");
            name.contains(".good.") || ACCEPTED.iter().any(|(file, _)| *file == name)
        });
        *(if is_good { &mut good } else { &mut bad }) += 1;
        match (rules(&path), is_good) {
            (Ok(_), false) => wrong.push(format!("{name} is accepted")),
            (Err(error), true) => wrong.push(format!("{name} is refused: {error:#}")),
            (Err(error), false) => println!("{name}: {error:#}"),
            (Ok(_), true) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(good >= 17 && bad >= 20, "{good} good and {bad} bad files");
    // What the files mean.
    let limited = rules(&folder.join("web_config_rate_limiter_one_second.yaml")).unwrap();
    let status = async |rules: &Rules, authorization: Option<&str>| {
        let mut request = Request::builder().uri("/metrics").header("host", "localhost");
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let peer = IpAddr::from([192, 0, 2, 1]);
        let refusal = rules.refuse(peer, &request.body(()).unwrap()).await;
        refusal.map(|refusal| refusal.status().as_u16())
    };
    assert_eq!(status(&limited, None).await, Some(429), "a burst of 0");
    let free = rules(&folder.join("web_config_rate_limiter_nonblocking.yaml")).unwrap();
    assert_eq!(status(&free, None).await, None);
    let users = rules(&folder.join("web_config_users_noTLS.good.yml")).unwrap();
    assert_eq!(status(&users, None).await, Some(401));
    // carol:carol, the user of exporter-toolkit's own tests with the cheapest hash.
    let right = "Basic Y2Fyb2w6Y2Fyb2wxMjM=";
    assert_eq!(status(&users, Some(right)).await, None);
}
