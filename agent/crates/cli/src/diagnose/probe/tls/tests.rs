//! Handshakes with `openssl s_server`, with certificates made for the test.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;

/// The configuration of an authority that signs what it is asked for.
const AUTHORITY: &str = "[ca]\ndefault_ca=d\n[d]\nnew_certs_dir=.\ndatabase=index.txt\nserial=serial\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n";

/// A server with one certificate. Dropping it ends it.
struct Server {
    child: Child,
    target: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Server {
    /// A server whose certificate is valid until `end` (`20300101000000Z`).
    fn start(end: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let openssl = |arguments: &str| {
            let mut command = Command::new("openssl");
            let output = command.args(arguments.split(' ')).current_dir(folder.path()).output();
            let output = output.expect("starting openssl");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        fs::write(folder.path().join("names"), "subjectAltName=DNS:shop.example\n")
            .expect("written");
        openssl(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=shop -keyout key.pem -out csr.pem",
        );
        for (name, text) in [("ca.cnf", AUTHORITY), ("index.txt", ""), ("serial", "01\n")] {
            fs::write(folder.path().join(name), text).expect("written");
        }
        openssl(&format!(
            "ca -batch -notext -config ca.cnf -selfsign -keyfile key.pem -in csr.pem -startdate 20200101000000Z -enddate {end} -extfile names -out cert.pem"
        ));
        let probe = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = probe.local_addr().expect("an address");
        drop(probe);
        let child = Command::new("openssl")
            .args(["s_server", "-www", "-cert", "cert.pem", "-key", "key.pem", "-accept"])
            .arg(target.to_string())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starting openssl");
        let server = Self { child, target, _folder: folder };
        for _ in 0..200 {
            if TcpStream::connect(target).is_ok() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("openssl s_server does not listen on {target}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_reported_and_its_name_is_checked() {
    let server = Server::start("20990101000000Z");
    let (_, certificate) = handshake(server.target, Some("shop.example")).expect("a handshake");
    assert!(certificate.days_left.is_some_and(|days| days > 10_000), "{certificate:?}");
    assert_eq!(certificate.untrusted.as_deref(), Some("unknown issuer"));
    let (_, certificate) = handshake(server.target, None).expect("a handshake");
    assert!(certificate.version.starts_with("TLSv1"), "{certificate:?}");
    let fault = handshake(server.target, Some("other.example")).expect_err("another name");
    let expected = TlsFault::OtherName {
        wanted: "other.example".to_owned(),
        presented: vec!["shop.example".to_owned()],
    };
    assert_eq!(fault, expected);
}

#[test]
fn an_expired_certificate_is_named_before_its_issuer() {
    let server = Server::start("20200102000000Z");
    let fault = handshake(server.target, Some("shop.example")).expect_err("expired");
    assert!(
        matches!(fault, TlsFault::Expired { days_ago: Some(days) } if days > 2000),
        "{fault:?}"
    );
}

#[test]
fn a_server_without_tls_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = listener.local_addr().expect("an address");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the probe");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("written");
    });
    assert_eq!(handshake(target, None).map(|_| ()).expect_err("plain"), TlsFault::NotTls);
    server.join().expect("the server");
}
