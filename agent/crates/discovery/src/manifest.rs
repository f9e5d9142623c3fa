//! The name in a project's manifest: `package.json`, `deno.json`, `pyproject.toml`. For programs of
//! templates (`index.js`, `main.py`) and programs that a title hides, that neither their arguments
//! nor their directories name: `/app/index.js`.

use std::path::Path;

use serde::Deserialize;

use super::program_name::ProgramName;
use linux::project_files;

/// Manifests of JavaScript, which name a project alike.
const PACKAGES: [&str; 2] = ["package.json", "deno.json"];

/// What is read of one.
#[derive(Deserialize)]
struct Package {
    name: String,
}

/// The project of a program that runs as process `tgid`, from the manifest in its folder, which is
/// relative to the working directory, or above.
pub(super) fn project(tgid: u32, folder: &str) -> Option<ProgramName> {
    let folder = project_files::folder(tgid, folder)?;
    of_package(tgid, &folder).or_else(|| of_python(tgid, &folder))
}

fn of_package(tgid: u32, folder: &Path) -> Option<ProgramName> {
    let name = |file| in_package(&project_files::read(tgid, folder, file)?);
    PACKAGES.into_iter().find_map(name)
}

fn of_python(tgid: u32, folder: &Path) -> Option<ProgramName> {
    in_python(&project_files::read(tgid, folder, "pyproject.toml")?)
}

/// `@shop/api` is `api`.
fn in_package(text: &[u8]) -> Option<ProgramName> {
    let Package { name } = serde_json::from_slice(text).ok()?;
    ProgramName::of(name.rsplit('/').next()?)
}

/// The key `name` of the table `project`, or of poetry's.
fn in_python(text: &[u8]) -> Option<ProgramName> {
    let text = std::str::from_utf8(text).ok()?;
    let mut is_project = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            is_project = matches!(line, "[project]" | "[tool.poetry]");
        }
        let value = line.strip_prefix("name").map(str::trim_start);
        let value = value.filter(|_| is_project).and_then(|rest| rest.strip_prefix('='));
        if let Some(value) = value {
            let value = value.trim_start();
            let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
            return ProgramName::of(value.split(quote).nth(1)?);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(found: Option<&ProgramName>, expected: Option<&str>, text: &str) {
        assert_eq!(found.map(ProgramName::as_str), expected, "{text}");
    }

    #[test]
    fn a_package_is_called_by_its_name_without_its_scope() {
        for (text, expected) in [
            (r#"{"name": "shop-api", "version": "1.0.0"}"#, Some("shop-api")),
            (
                r#"{"version": "1", "name": "@shop/api", "scripts": {"start": "node ."}}"#,
                Some("api"),
            ),
            (r#"{"name": ""}"#, None),
            (r#"{"name": "two words"}"#, None),
            (r#"{"name": ["x"]}"#, None),
            (r#"{"private": true}"#, None),
            (r#"{"name": "cut"#, None),
            ("", None),
        ] {
            check(in_package(text.as_bytes()).as_ref(), expected, text);
        }
    }

    #[test]
    fn a_python_project_is_called_by_its_name() {
        for (text, expected) in [
            ("[project]\nname = \"shop-api\"\n", Some("shop-api")),
            (
                "[build-system]\nname = \"x\"\n[tool.poetry]\nversion = \"1\"\nname='cart'",
                Some("cart"),
            ),
            ("[project]\nnames = \"x\"\n", None),
            ("[project]\nname = shop\n", None),
            ("[project]\nname = \"two words\"\n", None),
            ("[project.scripts]\nname = \"x\"\n", None),
            ("name = \"x\"", None),
            ("[project]\nname = \"", None),
        ] {
            check(in_python(text.as_bytes()).as_ref(), expected, text);
        }
    }

    #[test]
    fn a_program_of_deno_is_called_by_its_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |file: &str, text: &str| std::fs::write(folder.path().join(file), text).unwrap();
        write("deno.json", r#"{"name": "@shop/stock", "tasks": {}}"#);
        let own = std::process::id();
        if project_files::read(own, folder.path(), "deno.json").is_none() {
            println!("SKIPPED: the temporary folder is on another file system");
            return;
        }
        let name = || {
            let found = project(own, &folder.path().display().to_string());
            found.map(ProgramName::into_string)
        };
        assert_eq!(name().as_deref(), Some("stock"));
        // A package.json says more, if it says anything.
        write("package.json", r#"{"private": true}"#);
        assert_eq!(name().as_deref(), Some("stock"));
        write("package.json", r#"{"name": "cart"}"#);
        assert_eq!(name().as_deref(), Some("cart"));
    }

    proptest! {
        #[test]
        fn any_manifest_is_read_without_panic(text in "[\\[\\]a-z=\"'\\n \\PC]{0,80}") {
            let _ = (in_package(text.as_bytes()), in_python(text.as_bytes()));
        }
    }
}
