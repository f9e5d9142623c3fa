//! Credentials of the client, and the authorities it trusts.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use crate::Error;

/// How to identify the agent and ourselves. A password is only ever in a file: arguments and
/// environment are for every process to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Certificates (PEM) to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate (PEM), with its chain.
    pub cert: Option<PathBuf>,
    /// Its private key (PEM); without it, the key is in the file of the certificate.
    pub key: Option<PathBuf>,
    /// The user of basic authentication.
    pub user: Option<String>,
    /// The file with the user's password.
    pub password_file: Option<PathBuf>,
}

// === impl Credentials ===

impl Credentials {
    /// The header of basic authentication (RFC 7617), if there is a user.
    pub(crate) fn authorization(&self) -> Result<Option<HeaderValue>, Error> {
        let (user, path) = match (&self.user, &self.password_file) {
            (None, None) => return Ok(None),
            (Some(user), Some(path)) => (user, path),
            (Some(_), None) => {
                return Err(Error::Incomplete(
                    "--user needs --password-file, the file with that user's password",
                ));
            }
            (None, Some(_)) => return Err(Error::Incomplete("--password-file needs --user")),
        };
        if user.contains(':') {
            return Err(Error::Incomplete("--user must not contain a colon"));
        }
        let flag = "--password-file";
        let text = fs::read_to_string(path).map_err(|error| Error::File {
            flag,
            path: path.clone(),
            why: error.to_string(),
        })?;
        // Editors end a file with a newline; no password ends with one.
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            return Err(Error::File { flag, path: path.clone(), why: "is empty".to_owned() });
        }
        let encoded = STANDARD.encode(format!("{user}:{password}"));
        let value = HeaderValue::from_str(&format!("Basic {encoded}"));
        // Base64 has no character that a header cannot have.
        Ok(value.ok().map(|mut value| {
            value.set_sensitive(true);
            value
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_password(text: &str) -> Result<Option<HeaderValue>, String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("password");
        fs::write(&path, text).expect("written");
        let credentials = Credentials {
            user: Some("ann".to_owned()),
            password_file: Some(path),
            ..Credentials::default()
        };
        credentials.authorization().map_err(|error| error.to_string())
    }

    #[test]
    fn a_password_is_the_file_without_the_newline_at_its_end() {
        for text in ["sesame", "sesame\n", "sesame\r\n"] {
            let header = with_password(text).expect("valid").expect("a header");
            assert_eq!(header, format!("Basic {}", STANDARD.encode("ann:sesame")));
            assert!(!format!("{header:?}").contains("Basic"), "shown in logs: {header:?}");
        }
        assert!(with_password("\n").expect_err("refused").ends_with("password: is empty"));
    }

    #[test]
    fn a_user_without_a_password_is_refused_and_the_reverse() {
        let check = |credentials: Credentials, expected: &str| {
            assert_eq!(credentials.authorization().expect_err("refused").to_string(), expected);
        };
        let ann = || Credentials { user: Some("ann".to_owned()), ..Credentials::default() };
        check(ann(), "--user needs --password-file, the file with that user's password");
        let file = Some(PathBuf::from("/nowhere/password"));
        check(
            Credentials { password_file: file.clone(), ..Credentials::default() },
            "--password-file needs --user",
        );
        check(
            Credentials { password_file: file, ..ann() },
            "--password-file /nowhere/password: No such file or directory (os error 2)",
        );
    }
}
