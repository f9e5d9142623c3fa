//! Responses of the real server to commands, over each transport, and the messages of failures.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;

use model::fixture::snapshot;
use model::snapshot::Snapshot;
use telemetry::Build;
use telemetry::source::channel;
use tokio::sync::watch;

use super::*;
use crate::known;
use server::web::Hosts;
use server::{self, Api, Endpoint, Web, local};

/// A self-signed certificate for these names, as for a single host.
const SELF_SIGNED: &str = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout server.key -out server.pem -subj /CN=localhost";

/// A folder with files that are made anew.
pub(crate) struct Files(tempfile::TempDir);

/// A server of an agent's API, over TCP and over its Unix socket.
pub(crate) struct Served {
    address: SocketAddr,
    socket: PathBuf,
    _stop: watch::Sender<()>,
}

// === impl Files, Served ===

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).expect("written");
        self.path(name)
    }

    fn openssl(&self, arguments: &str) {
        let mut openssl = Command::new("openssl");
        openssl.args(arguments.split(' ')).current_dir(self.0.path());
        let output = openssl.output().expect("starting openssl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// An authority, `ca.pem`, and its certificates for a server and a client.
    fn authority(&self) {
        self.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem");
        for (name, names) in [("server", "DNS:localhost"), ("client", "DNS:ann.example")] {
            self.write("names", &format!("subjectAltName={names}\n"));
            self.openssl(&format!("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"));
            self.openssl(&format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out {name}.pem"));
        }
    }

    /// Serves by this web configuration.
    pub(crate) fn serve(&self, web: &str) -> Served {
        self.serve_of(web, snapshot())
    }

    /// Serves this, by this web configuration.
    pub(crate) fn serve_of(&self, web: &str, shown: Snapshot) -> Served {
        let file = (!web.is_empty()).then(|| self.write("web.yml", web));
        let listener = server::bind(([127, 0, 0, 1], 0).into(), |_| None).expect("bound");
        let address = listener.local_addr().expect("an address");
        let endpoint = Endpoint { address, file, hosts: Hosts::default() };
        let web = Arc::new(Web::open(endpoint).expect("a valid web configuration"));
        let control = local::bind(self.0.path(), None, |_| Vec::new()).expect("bound");
        let (stop, stopping) = watch::channel(());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let (source, mut requests) = channel();
                let shown = Arc::new(shown);
                tokio::spawn(async move {
                    loop {
                        requests.asked().await;
                        requests.publish(&shown);
                    }
                });
                let build = Build { version: "0.0.0".into(), kernel: "6.18.0".into() };
                let api = Api::new(source, build);
                tokio::spawn(control.serve(server::router(api.clone()), stopping.clone()));
                let mut stopping = stopping;
                let stopped = async move {
                    let _ = stopping.changed().await;
                };
                server::serve(listener, server::router(api), web, stopped).await.expect("served");
            });
        });
        Served { address, socket: self.path(local::NAME), _stop: stop }
    }
}

impl Served {
    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}", self.address.port())
    }

    fn target(&self, scheme: &str) -> Connection {
        Connection { url: Some(self.url(scheme)), ..Connection::default() }
    }

    pub(crate) fn http(&self) -> Connection {
        self.target("http")
    }

    fn https(&self) -> Connection {
        self.target("https")
    }
}

impl Connection {
    /// The response of one of an agent's routes, or the message.
    fn edges(&self) -> Result<serde_json::Value, String> {
        let body = self.text("/api/v1/edges").map_err(|error| format!("{error:#}"))?;
        Ok(client::read(&body).expect("JSON"))
    }

    #[track_caller]
    fn works(&self) {
        let edges = self.edges().expect("an answer");
        assert!(edges["edges"].as_array().is_some_and(|edges| !edges.is_empty()), "{edges}");
    }

    /// Fails with this message; AGENT stands for the address.
    #[track_caller]
    fn fails_with(&self, expected: &str) {
        let said = self.edges().expect_err("refused");
        let agent = self.url.as_deref().unwrap_or("no URL");
        assert_eq!(said.replace(agent, "AGENT"), expected);
    }
}

#[test]
fn plain_http_and_the_socket_give_the_same_answer() {
    let files = Files::new();
    let served = files.serve("");
    served.http().works();
    let socket = Connection { socket: Some(served.socket.clone()), ..Connection::default() };
    assert_eq!(socket.edges(), served.http().edges());
    served.target("https").fails_with("AGENT does not speak TLS: use http:// in --url");
}

#[test]
fn without_an_address_the_usual_socket_is_read_if_it_is_there() {
    let files = Files::new();
    let served = files.serve("");
    let target = Connection::default();
    let body = target.fetch(Named::Nothing, &served.socket, "/api/v1/edges").expect("an answer");
    assert!(body.contains("postgres"), "{body}");
}

#[test]
fn changes_go_through_the_socket_alone() {
    let url = Connection { url: Some("http://127.0.0.1:1".to_owned()), ..Connection::default() };
    let error = url.change(Method::POST, "/x", &()).expect_err("refused").to_string();
    assert!(error.contains("only through its Unix socket"), "{error}");
}

#[test]
fn a_password_is_asked_for_checked_and_read_from_its_file() {
    let files = Files::new();
    let hash = bcrypt::hash("sesame", 4).expect("hashed");
    let served = files.serve(&format!("basic_auth_users:\n  ann: {hash}\n"));
    served.http().fails_with(
        "AGENT wants a user and a password (401): give them with --user and --password-file",
    );
    let with = |password: &str| Connection {
        user: Some("ann".to_owned()),
        password_file: Some(files.write("password", password)),
        ..served.http()
    };
    with("sesame\n").works();
    with("sesam").fails_with(
        "AGENT does not accept this user and password (401): check --user and --password-file",
    );
}

#[test]
fn a_certificate_is_checked_against_the_authority_and_the_name() {
    let files = Files::new();
    files.authority();
    let served =
        files.serve("tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n");
    let ca_file = Some(files.path("ca.pem"));
    Connection { ca_file: ca_file.clone(), ..served.https() }.works();
    served.https().fails_with(
        "the certificate of AGENT cannot be trusted: no known authority has issued it; name the certificate of its authority with --ca-file",
    );
    let by_address = format!("https://127.0.0.1:{}", served.address.port());
    Connection { ca_file, url: Some(by_address), ..Connection::default() }.fails_with(
        "the certificate of AGENT cannot be trusted: it is for localhost; use a name of these in --url",
    );
    served.http().fails_with(
        "AGENT speaks TLS: use https:// in --url, and --ca-file unless its certificate is publicly trusted",
    );
    let none = Connection { ca_file: Some("/nowhere/ca.pem".into()), ..served.https() };
    let said = none.edges().expect_err("refused");
    assert!(
        said.starts_with("--ca-file /nowhere/ca.pem: cannot read certificates (PEM)"),
        "{said}"
    );
}

#[test]
fn a_certificate_that_signs_itself_is_trusted_if_it_is_the_one_that_was_named() {
    for names in ["", " -addext subjectAltName=DNS:localhost"] {
        let files = Files::new();
        files.openssl(&format!("{SELF_SIGNED}{names}"));
        let served =
            files.serve("tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n");
        Connection { ca_file: Some(files.path("server.pem")), ..served.https() }.works();
        let other = Files::new();
        other.openssl(&format!("{SELF_SIGNED}{names}"));
        let said = Connection { ca_file: Some(other.path("server.pem")), ..served.https() }.edges();
        assert!(said.expect_err("refused").contains("cannot be trusted"), "{names}");
    }
    // One that is for another host stays that.
    let files = Files::new();
    files.openssl(&format!("{SELF_SIGNED} -addext subjectAltName=DNS:other.example"));
    let served =
        files.serve("tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n");
    Connection { ca_file: Some(files.path("server.pem")), ..served.https() }.fails_with(
        "the certificate of AGENT cannot be trusted: it is for other.example; use a name of these in --url",
    );
}

#[test]
fn a_client_certificate_is_shown_if_the_agent_wants_one() {
    for version in ["TLS12", "TLS13"] {
        let files = Files::new();
        files.authority();
        let served = files.serve(&format!(
            "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n  max_version: {version}\n  \
             client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n"
        ));
        let target = || Connection { ca_file: Some(files.path("ca.pem")), ..served.https() };
        target().fails_with("AGENT wants a client certificate: give one with --cert and --key");
        let cert = Some(files.path("client.pem"));
        Connection { cert: cert.clone(), key: Some(files.path("client.key")), ..target() }.works();
        // One of another authority.
        let other = Files::new();
        other.authority();
        let (other_cert, other_key) = (other.path("client.pem"), other.path("client.key"));
        let said = Connection { cert: Some(other_cert), key: Some(other_key), ..target() }.edges();
        let said = said.expect_err("refused");
        assert!(said.contains("does not accept this client certificate"), "{version}: {said}");
        let said = Connection { cert, key: Some(files.path("server.key")), ..target() }.edges();
        let said = said.expect_err("refused");
        assert!(said.contains("does not go with the certificate"), "{said}");
    }
}

/// A server that sends `answer` to each client.
fn foreign(answer: &'static str) -> Connection {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    Connection { url: Some(format!("http://{address}")), ..Connection::default() }
}

#[test]
fn another_server_is_recognised() {
    foreign("HTTP/1.1 404 Not Found\r\ncontent-length: 18\r\n\r\n<html>nginx</html>").fails_with(
        "AGENT is not a Portolan agent (it answered with status 404, but not in its JSON): check the address",
    );
    foreign("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi").fails_with(
        "AGENT is not a Portolan agent (it answered with status 200, but not in its JSON): check the address",
    );
    let said = foreign("220 mail.example ESMTP\r\n").edges().expect_err("refused");
    assert!(said.contains(" is not an HTTP server ("), "{said}");
}

#[test]
fn without_an_agent_the_error_has_the_fix() {
    // Bound and dropped: there is no listener.
    let address = TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr());
    let url = format!("http://{}", address.expect("an address"));
    Connection { url: Some(url), ..Connection::default() }.fails_with(
        "no agent answers at AGENT: start it with `portolan agent`, or name another with --url",
    );
    let nowhere =
        Connection { socket: Some("/nowhere/control.sock".into()), ..Connection::default() };
    nowhere.fails_with(
        "no agent listens on /nowhere/control.sock: start it with `portolan agent`, or name its socket with --socket",
    );
}

#[test]
fn flags_win_over_variables_and_an_empty_variable_is_none() {
    let variables = |name: &str| match name {
        URL => Some("http://variable:1".to_owned()),
        SOCKET => Some("/variable.sock".to_owned()),
        _ => None,
    };
    let url = Connection { url: Some("http://flag:1".to_owned()), ..Connection::default() };
    assert_eq!(url.named(variables), Named::Url("http://flag:1".to_owned()));
    let socket = Connection { socket: Some("/flag.sock".into()), ..Connection::default() };
    assert_eq!(socket.named(variables), Named::Socket("/flag.sock".into()));
    let neither = Connection::default();
    assert_eq!(neither.named(variables), Named::Url("http://variable:1".to_owned()));
    let only_socket = |name: &str| variables(name).filter(|_| name == SOCKET);
    assert_eq!(neither.named(only_socket), Named::Socket("/variable.sock".into()));
    assert_eq!(neither.named(|_| Some(String::new())), Named::Nothing);
}

#[test]
fn a_service_that_does_not_exist_is_an_error_with_the_nearest_name() {
    let files = Files::new();
    let served = files.serve("");
    let target =
        Connection { url: Some(format!("http://{}", served.address)), ..Connection::default() };
    let check = |name: &str| known::check(&target, &[name.to_owned()], &["seen".to_owned()]);
    for name in ["postgres", "shop", "prod/shop", "billing", "seen"] {
        assert!(check(name).is_ok(), "{name}");
    }
    let error = check("postgrse").expect_err("unknown").to_string();
    assert_eq!(error, "no service is named postgrse; did you mean postgres?");
}

#[test]
fn the_agents_reason_for_a_refused_name_is_shown() {
    let files = Files::new();
    let served = files.serve("");
    // A name that leads here and is nobody's: what a browser would send after rebinding.
    let mut stream = std::net::TcpStream::connect(served.address).expect("connected");
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: evil.example\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.0 421 "), "{answer}");
    assert!(
        answer.contains("\"error\":\"\\\"evil.example\\\" is not a name of this agent"),
        "{answer}"
    );
}

#[test]
fn an_agent_on_the_loopback_is_on_this_host() {
    for url in ["http://127.0.0.1:10062", "https://localhost", "http://[::1]:80/portolan"] {
        assert!(is_loopback(url), "{url}");
    }
    for url in ["http://node7:10062", "https://192.0.2.1/localhost", "http://[2001:db8::1]:80"] {
        assert!(!is_loopback(url), "{url}");
    }
}
