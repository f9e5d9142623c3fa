//! What Node.js runs: a script, or a task of npm, yarn or pnpm.

use super::{in_directory, plain};
use crate::flags::{LOADER, NODE, NPX, Target};
use crate::program_name::{ProgramName, basename};

/// Flags of npm, yarn and pnpm that take a value.
const PACKAGE_VALUE: &str = "--prefix -C --dir --cwd --workspace -w --filter -F --loglevel";
/// The same without one.
const PACKAGE_BARE: &str = "--silent -s --quiet -q --if-present --workspaces -r --recursive";
/// Sub-commands that run a task.
const PACKAGE_VERBS: [&str; 9] =
    ["run", "run-script", "exec", "x", "dlx", "start", "test", "serve", "dev"];

pub(super) fn node(arguments: &[String]) -> Option<ProgramName> {
    match NODE.target(arguments) {
        Target::Named(script, _) => ProgramName::task("node", script),
        Target::Nameless => None,
        Target::Script(script, rest) => {
            let base = basename(script);
            let behind = match base.split('.').next().unwrap_or(base) {
                "npm-cli" | "npm" => return package_tool("npm", rest),
                "yarn" | "yarnpkg" => return package_tool("yarn", rest),
                "pnpm" => return package_tool("pnpm", rest),
                "npx-cli" | "npx" => plain(&NPX, rest),
                "ts-node" | "ts-node-dev" | "tsx" | "nodemon" | "babel-node" | "inspect" => {
                    plain(&LOADER, rest)
                }
                _ => None,
            };
            behind.or_else(|| in_directory(script, "index.js")).or_else(|| ProgramName::of(script))
        }
    }
}

/// `npm run start` and `npm start` → `npm start`; for yarn and pnpm alike. `None` for any other
/// command.
pub(crate) fn package_script(command: &str) -> Option<ProgramName> {
    let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    let (tool, rest) = words.split_first()?;
    matches!(tool.as_str(), "npm" | "yarn" | "pnpm").then(|| package_tool(tool, rest))?
}

fn package_tool(tool: &str, arguments: &[String]) -> Option<ProgramName> {
    let mut words = arguments.iter().map(String::as_str);
    let script = match package_word(&mut words) {
        Some("run" | "run-script" | "exec" | "x" | "dlx") => package_word(&mut words),
        first => first,
    };
    script.and_then(|script| ProgramName::task(tool, script)).or_else(|| ProgramName::of(tool))
}

/// The next argument of a package tool that is neither a flag nor a flag's value.
fn package_word<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut is_doubtful = false;
    while let Some(word) = words.next() {
        if !word.starts_with('-') {
            return Some(word).filter(|word| !is_doubtful || PACKAGE_VERBS.contains(word));
        }
        let listed = |list: &str| list.split_ascii_whitespace().any(|one| one == word);
        if listed(PACKAGE_VALUE) {
            words.next();
        }
        // Behind `--` are arguments of the script.
        if word == "--" {
            return None;
        }
        is_doubtful = !(word.contains('=') || listed(PACKAGE_BARE) || listed(PACKAGE_VALUE));
    }
    None
}
