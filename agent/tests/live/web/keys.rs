//! Keys and certificates for a server and its clients, made by openssl.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::clients::said;

/// A folder with an authority, a server's certificate and one of a client.
pub struct Keys {
    folder: tempfile::TempDir,
}

impl Keys {
    /// All of them, made anew.
    pub fn new() -> Self {
        let keys = Self { folder: tempfile::tempdir().unwrap() };
        keys.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem");
        keys.issue("server", "DNS:localhost,IP:127.0.0.1");
        keys.issue("scraper", "DNS:scraper.example");
        keys.issue("outsider", "DNS:outsider.example");
        keys
    }

    /// Where one of its files is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn openssl(&self, arguments: &str) {
        let mut openssl = Command::new("openssl");
        openssl.args(arguments.split(' ')).current_dir(self.folder.path());
        let output = openssl.output().expect("starting openssl");
        assert!(output.status.success(), "{arguments}\n{}", said(&output));
    }

    pub(super) fn issue(&self, name: &str, sans: &str) {
        fs::write(self.path("san.ext"), format!("subjectAltName={sans}\n")).unwrap();
        self.openssl(&format!("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        self.openssl(&format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san.ext -out {name}.pem"));
    }

    /// Writes a file beside them; its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        self.text(name)
    }

    pub(super) fn configure(&self, text: &str) -> String {
        self.write("web.yml", text)
    }
}
