//! Proof that the kernel object depends on its sources and toolchain, and not on where they lie.
//!
//! The build script of the agent, as cargo compiled it, is run once more for a copy of the checkout
//! in another folder, with cargo's home under another name. The object must come out the same, byte
//! for byte: operators compare its hash between hosts, and a rebuild with the released one.

use std::env::consts::ARCH;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, io};

use anyhow::{Context as _, Result, bail};
use portolan_kit::{build, shell, summary, tree};
use serde_json::Value;

const OBJECT: &str = "portolan-ebpf";

/// cargo's message about the loader's build script.
#[derive(Debug, PartialEq, Eq)]
struct Script {
    program: PathBuf,
    out: PathBuf,
}

/// Builds the kernel object in another folder and compares.
pub fn reproducible() -> Result<()> {
    let messages = shell::output(build::everything()?.arg("--quiet"))?;
    let Script { program, out } = Script::find(&messages).context("cargo runs no build script")?;

    let elsewhere = tempfile::tempdir().context("making a folder for the copy")?;
    let copy = elsewhere.path().join("a copy of the checkout");
    copy_checkout(&copy).context("copying the checkout")?;
    let home = elsewhere.path().join("home");
    borrow_home(&home).context("making another home for cargo")?;
    let there = elsewhere.path().join("out");
    fs::create_dir(&there).context("making a folder for the object")?;

    let mut script = Command::new(program);
    script.env("CARGO_MANIFEST_DIR", copy.join("agent/crates/loader")).env("OUT_DIR", &there);
    script.env("CARGO_CFG_TARGET_ARCH", ARCH).env("CARGO_CFG_TARGET_ENDIAN", "little");
    shell::quiet(script.env("CARGO_HOME", &home))?;

    let read = |folder: &Path| fs::read(folder.join(OBJECT)).context("reading the kernel object");
    if let Some(at) = difference(&read(&out)?, &read(&there)?) {
        let other = elsewhere.keep().join("out").join(OBJECT);
        bail!(
            "the kernel object depends on where it is built: {} and {} differ from byte {at} on; \
             a path that is not in `places` of agent/crates/loader/build.rs?",
            tree::shown(&out.join(OBJECT)),
            other.display()
        );
    }
    summary::report("the kernel object is the same, byte for byte, built in another folder")
}

fn copy_checkout(copy: &Path) -> Result<()> {
    for file in tree::files()? {
        let (from, to) = (tree::root().join(&file), copy.join(&file));
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        // A link is copied as a link: it may lead to a folder.
        let copied = match fs::read_link(&from) {
            Ok(target) => symlink(target, &to),
            Err(_) => fs::copy(&from, &to).map(drop),
        };
        match copied {
            Ok(()) => {}
            // Deleted, but not yet committed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("copying {file}")),
        }
    }
    Ok(())
}

/// Cargo's home under another path, to reuse downloaded crates.
fn borrow_home(home: &Path) -> Result<()> {
    let usual = || env::home_dir().map(|folder| folder.join(".cargo"));
    let real = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(usual);
    let real = real.context("CARGO_HOME is not set, and there is no home")?;
    fs::create_dir(home)?;
    for entry in fs::read_dir(&real).with_context(|| format!("listing {}", real.display()))? {
        let entry = entry?;
        symlink(entry.path(), home.join(entry.file_name()))?;
    }
    Ok(())
}

/// The first byte that differs in two objects.
fn difference(one: &[u8], other: &[u8]) -> Option<usize> {
    let common = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    (common < one.len() || common < other.len()).then_some(common)
}

// === impl Script ===

impl Script {
    /// Reads cargo's messages, one JSON object a line.
    fn find(output: &str) -> Option<Self> {
        let messages: Vec<Value> =
            output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let program = messages.iter().find(|message| {
            message["target"]["kind"][0] == "custom-build"
                && message["target"]["src_path"]
                    .as_str()
                    .is_some_and(|path| path.ends_with("/loader/build.rs"))
        })?;
        let executed = messages.iter().find(|message| {
            message["reason"] == "build-script-executed"
                && message["package_id"] == program["package_id"]
        })?;
        Some(Self {
            program: program["filenames"][0].as_str()?.into(),
            out: executed["out_dir"].as_str()?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_differ_where_a_byte_does_or_one_ends() {
        assert_eq!(difference(b"same", b"same"), None);
        assert_eq!(difference(b"place a", b"place b"), Some(6));
        assert_eq!(difference(b"short", b"shorter"), Some(5));
        assert_eq!(difference(b"shorter", b"short"), Some(5));
    }

    #[test]
    fn the_build_script_is_found_among_those_of_others() {
        let messages = r#"
{"reason":"compiler-artifact","package_id":"libc","target":{"kind":["custom-build"],"src_path":"/r/libc/build.rs"},"filenames":["/t/libc"]}
{"reason":"build-script-executed","package_id":"libc","out_dir":"/o/libc"}
{"reason":"compiler-artifact","package_id":"a","target":{"kind":["custom-build"],"src_path":"/w/agent/crates/loader/build.rs"},"filenames":["/t/a"]}
{"reason":"build-script-executed","package_id":"a","out_dir":"/o/a"}"#;
        let expected = Script { program: "/t/a".into(), out: "/o/a".into() };
        assert_eq!(Script::find(messages), Some(expected));
        assert_eq!(Script::find(""), None);
    }
}
