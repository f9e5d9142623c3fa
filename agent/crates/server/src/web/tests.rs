//! Valid web configuration files, and the errors of invalid ones.

use std::fs;

use super::file::WebFile;
use super::*;

#[test]
fn a_file_of_exporter_toolkit_is_understood_whole() {
    let text = "
tls_server_config:
  cert_file: server.pem
  key_file: server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.pem
  client_allowed_sans: [scraper.example]
  min_version: TLS12
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
  curve_preferences: [CurveP256]
http_server_config:
  http2: false
  headers:
    X-Frame-Options: deny
basic_auth_users:
  a: $2y$10$MDYyTbkUwmQUXWbZBRhHRO5kQZyFqV4xEBxMyMzXvmeH2CXLsMuKG
";
    let file = WebFile::parse(text).unwrap();
    assert_eq!(file.basic_auth_users.len(), 1);
    assert_eq!(file.http_server_config.headers().unwrap().len(), 1);
    assert!(!format!("{file:?}").contains("$2y$"), "hashes are not for logs");
    assert!(WebFile::parse("# nothing yet\n").is_ok());
}

#[test]
fn what_exporter_toolkit_refuses_is_refused_with_the_fix() {
    let check = |tls: &str, word: &str| {
        let text = format!("tls_server_config:\n  cert_file: a\n  key_file: b\n{tls}");
        let error = WebFile::parse(&text).unwrap_err().to_string();
        assert!(error.contains(word), "{tls}: {error}");
    };
    check("  client_ca_file: c\n", "set client_auth_type");
    check("  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]\n", "http2: false");
    check("  client_allowed_sans: [a]\n", "RequireAndVerifyClientCert");
    check("  client_auth_type: Sometimes\n", "Sometimes");
    check("  colour: red\n", "colour");
    check("  cert: x\n", "keep one");
}

fn open(path: Option<&Path>, hosts: Hosts) -> anyhow::Result<Web> {
    let address = SocketAddr::from(([127, 0, 0, 1], 10062));
    Web::open(Endpoint { address, file: path.map(Path::to_owned), hosts })
}

fn peer(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

#[tokio::test]
async fn hosts_matter_where_neither_tls_nor_passwords_protect() {
    let request = || {
        let request = Request::builder().uri("/healthz").header("host", "evil.example");
        request.body(()).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.yml");
    fs::write(
        &path,
        "basic_auth_users: {ada: $2y$10$MDYyTbkUwmQUXWbZBRhHRO5kQZyFqV4xEBxMyMzXvmeH2CXLsMuKG}\n",
    )
    .unwrap();
    let status = async |path: Option<&Path>, hosts: Hosts| {
        let web = open(path, hosts).unwrap();
        let refusal = web.rules().refuse(peer(1), &request()).await;
        refusal.map(|refusal| refusal.status().as_u16())
    };
    let listed = || Hosts::new(&[], &["prom.example".parse().unwrap()]);
    assert_eq!(status(None, Hosts::default()).await, Some(421));
    assert_eq!(status(Some(&path), Hosts::default()).await, None);
    assert_eq!(status(Some(&path), listed()).await, Some(421));
}

#[test]
fn the_time_to_wait_is_in_whole_seconds() {
    let check = |wait: u64, seconds: &str| {
        let response = later(Duration::from_millis(wait), "x");
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers().get("retry-after").unwrap(), seconds);
    };
    check(1, "1");
    check(1000, "1");
    check(1001, "2");
}

#[test]
fn no_change_removes_passwords() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.yml");
    let users =
        "basic_auth_users: {ada: $2y$10$MDYyTbkUwmQUXWbZBRhHRO5kQZyFqV4xEBxMyMzXvmeH2CXLsMuKG}\n";
    fs::write(&path, users).unwrap();
    let web = open(Some(&path), Hosts::default()).unwrap();
    let asks = || {
        // As if a second had passed.
        web.state.lock().unwrap().looked -= LOOK_EVERY;
        web.rules().passwords.is_some()
    };
    assert!(asks());
    for open in ["", "http_server_config: {http2: false}\n"] {
        fs::write(&path, open).unwrap();
        assert!(asks(), "{open:?}");
    }
    fs::write(&path, format!("{users}http_server_config: {{http2: false}}\n")).unwrap();
    assert!(asks());
}

#[test]
fn a_changed_file_is_in_force_within_a_second_and_a_mistake_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.yml");
    let write = |value: &str| {
        fs::write(
            &path,
            format!("http_server_config: {{headers: {{X-Frame-Options: {value}}}}}\n"),
        )
        .unwrap();
    };
    let shown = |web: &Web| {
        // As if a second had passed.
        web.state.lock().unwrap().looked -= LOOK_EVERY;
        let mut headers = HeaderMap::new();
        web.rules().decorate(&mut headers);
        headers.get("x-frame-options").and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    write("deny");
    let web = open(Some(&path), Hosts::default()).unwrap();
    assert_eq!(shown(&web).as_deref(), Some("deny"));
    write("sameorigin");
    assert_eq!(shown(&web).as_deref(), Some("sameorigin"));
    fs::write(&path, "http_server_config: {hedders: {}}\n").unwrap();
    assert_eq!(shown(&web).as_deref(), Some("sameorigin"));
    fs::remove_file(&path).unwrap();
    assert_eq!(shown(&web).as_deref(), Some("sameorigin"));
    write("deny");
    assert_eq!(shown(&web).as_deref(), Some("deny"));
}
