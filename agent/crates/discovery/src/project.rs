//! Projects: what a program is called whose own name is one that many have.
//!
//! Scripts of templates (`index.js`, `main.py`, `app.jar`), servers of applications (`gunicorn`,
//! `next-server`) and programs of interpreters that a title hides (`my worker 3`) are called by the
//! directory that they are in: that of the script, else the working directory. Both are names that the kernel half recorded, so nothing is opened, and the
//! name is the same after the process has exited. Directories that are no project's own (`src`,
//! `dist`, `/srv`) are skipped, and home and temporary directories name nothing.

use agent_common::owner::{DIRECTORY_BYTES, PATH_BYTES};

use super::flags::is_source;
use super::program_name::ProgramName;

/// Files and modules that templates of projects contain.
const TEMPLATES: &[&str] = &[
    "__main__",
    "app",
    "application",
    "artisan",
    "asgi",
    "console",
    "index",
    "main",
    "manage",
    "run",
    "server",
    "start",
    "wsgi",
];

/// Servers of applications.
const SERVERS: &[&str] = &[
    "celery",
    "celeryd",
    "daphne",
    "falcon",
    "flask",
    "granian",
    "gunicorn",
    "hypercorn",
    "next",
    "next-server",
    "nuxt",
    "puma",
    "rackup",
    "rails",
    "sidekiq",
    "thin",
    "unicorn",
    "unicorn_rails",
    "uvicorn",
    "vite",
    "waitress",
    "waitress-serve",
];

/// Directories that exist in many projects or on many hosts.
const COMMON: &[&str] = &[
    "app",
    "bin",
    "build",
    "classes",
    "code",
    "current",
    "data",
    "debug",
    "dist",
    "etc",
    "htdocs",
    "html",
    "lib",
    "lib64",
    "libexec",
    "local",
    "mnt",
    "node_modules",
    "opt",
    "out",
    "proc",
    "public",
    "public_html",
    "release",
    "root",
    "run",
    "sbin",
    "share",
    "site-packages",
    "spool",
    "src",
    "srv",
    "standalone",
    "sys",
    "target",
    "usr",
    "var",
    "work",
    "workdir",
    "workspace",
    "www",
];

/// Directories whose entries are users or have random names.
const NAMELESS: &[&str] = &["Users", "home", "shm", "tmp"];

/// Directories of which each version of a project is one.
const VERSIONED: &[&str] = &["releases", "versions"];

/// The name of the project, for a program whose own name does not tell it from others. `path` is
/// the working directory, as the kernel half records it.
pub(super) fn project(program: &ProgramName, path: &[u8; PATH_BYTES]) -> Option<ProgramName> {
    let is_server = is_server(program);
    if !(is_server || is_template(program.as_str())) {
        return None;
    }
    // A server's own file is where it was installed.
    let folder = if is_server { "" } else { program.folder() };
    named(&directories(folder, path))
}

/// The name of the project of a working directory.
pub(super) fn of_directory(path: &[u8; PATH_BYTES]) -> Option<ProgramName> {
    named(&directories("", path))
}

/// Whether a program serves the applications of others.
pub(super) fn is_server(program: &ProgramName) -> bool {
    SERVERS.contains(&program.as_str())
}

/// `index.js`, `app.main`, `src`; but not `usr.py`: a file is not called like a directory by a
/// template.
pub(super) fn is_template(name: &str) -> bool {
    let is_of_template = |part: &str| TEMPLATES.iter().any(|one| part.eq_ignore_ascii_case(one));
    let stem = name.rsplit_once('.').map(|(stem, _)| stem).filter(|_| is_source(name));
    let is_file = stem.is_some();
    let stem = stem.unwrap_or(name);
    let last = stem.rsplit('.').next().unwrap_or(stem);
    (!is_file || is_of_template(last))
        && stem.split('.').all(|part| is_of_template(part) || COMMON.contains(&part))
}

/// The directory that names a project. The last one of the path comes first; `None` is a name that
/// was cut, and what is above the last one is not known.
fn named(directories: &[Option<&str>]) -> Option<ProgramName> {
    let mut rest = directories;
    while let [Some(name), above @ ..] = rest {
        let parent = above.first().copied().flatten().unwrap_or_default();
        if *name == "/" || NAMELESS.contains(name) || NAMELESS.contains(&parent) {
            return None;
        }
        let is_version = VERSIONED.contains(&parent) || !name.contains(char::is_alphabetic);
        let is_common = COMMON.contains(name) || VERSIONED.contains(name) || name.starts_with('.');
        if !(is_version || is_common) {
            return ProgramName::of(name);
        }
        rest = above;
    }
    None
}

/// The directories above a program, the last one first.
fn directories<'a>(folder: &'a str, path: &'a [u8; PATH_BYTES]) -> Vec<Option<&'a str>> {
    let mut found: Vec<Option<&str>> = vec![Some("/")];
    if !folder.starts_with('/') {
        found = path.chunks(DIRECTORY_BYTES).rev().map(recorded).collect();
    }
    for name in folder.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(found.pop()),
            name => found.push(Some(name)),
        }
    }
    found.reverse();
    found
}

/// The name of a directory, unless it was cut or cannot be read.
fn recorded(name: &[u8]) -> Option<&str> {
    let end = name.iter().position(|byte| *byte == 0).filter(|end| *end < DIRECTORY_BYTES - 1)?;
    std::str::from_utf8(name.get(..end)?).ok().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_path;

    fn check(program: &str, cwd: &str, expected: Option<&str>) {
        let program = ProgramName::of(program).unwrap();
        let found = project(&program, &test_path(cwd)).map(ProgramName::into_string);
        assert_eq!(found.as_deref(), expected, "{program:?} in {cwd}");
    }

    #[test]
    fn a_template_is_called_by_the_directory_of_its_script() {
        for script in
            ["index.js", "main.py", "server.js", "app.jar", "Main.java", "app.js", "__main__.py"]
        {
            check(&format!("/srv/shop/{script}"), "/srv/mail", Some("shop"));
            check(script, "/srv/shop", Some("shop"));
        }
        check("/srv/shop/dist/src/main.js", "/", Some("shop"));
        check("/home/alice/shop/main.py", "/", Some("shop"));
        check("./dist/server.js", "/srv/shop", Some("shop"));
        check("../mail/index.js", "/srv/shop", Some("mail"));
        check("../../index.js", "/srv/shop/web/src", Some("shop"));
        check("/srv/shop/releases/20261129/index.js", "/", Some("shop"));
        check("/srv/shop/releases/a1b2c3/index.js", "/", Some("shop"));
        check("/srv/shop/current/index.js", "/", Some("shop"));
        check("/usr/src/app/index.js", "/", None);
    }

    #[test]
    fn a_module_of_a_template_and_a_server_are_called_by_the_working_directory() {
        for program in ["main", "app.main", "src.app", "wsgi", "gunicorn", "next-server", "puma"] {
            check(program, "/srv/shop", Some("shop"));
            check(program, "/srv/shop/src", Some("shop"));
        }
        check("/srv/venv/bin/gunicorn", "/srv/shop", Some("shop"));
        check("/srv/shop/node_modules/.bin/next", "/srv/mail", Some("mail"));
    }

    #[test]
    fn a_program_with_a_name_of_its_own_keeps_it() {
        for program in
            ["orders.js", "shop.wsgi", "com.shop.Main", "nginx", "http.server", "app.web", "usr.py"]
        {
            check(program, "/srv/shop", None);
        }
    }

    #[test]
    fn directories_of_no_project_name_nothing() {
        for cwd in [
            "/",
            "/app",
            "/srv",
            "/usr/src/app",
            "/home/alice",
            "/home/alice/src",
            "/root",
            "/tmp",
            "/tmp/tmpx8a1",
            "/var/tmp/x",
            "/dev/shm/x",
            "/var/www/html",
            "/srv/a b",
            "/srv/A=hunter2",
            "/srv/user:hunter2",
            "/srv/-phunter2",
        ] {
            check("index.js", cwd, None);
            check("gunicorn", cwd, None);
        }
        // Cut, and not known.
        check("index.js", &format!("/srv/{}", "x".repeat(DIRECTORY_BYTES)), None);
        check("../../../../index.js", "/srv/shop", None);
        assert_eq!(project(&ProgramName::of("index.js").unwrap(), &[0; PATH_BYTES]), None);
    }
}
