//! What an interpreter runs, from its arguments: the script, module or class behind the flags.
//!
//! A web server that loads an application (`gunicorn shop.wsgi:app`) is named after it.

mod node;
mod python;

pub(super) use self::node::package_script;
pub(super) use self::python::{application_name, is_worker};
use super::flags::{BUN, DENO, DOTNET, Flags, JAVA, NODE, PERL, PHP, PYTHON, RUBY, Target};
use super::program_name::{ProgramName, basename};
use super::shell;

/// A language whose interpreter is known by its command name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Node,
    Python,
    Java,
    Ruby,
    Perl,
    Php,
    PhpFpm,
    Shell,
    Deno,
    Bun,
    Dotnet,
    Erlang,
}

impl Language {
    /// The language of an interpreter's file name or command name, versions aside.
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.') {
            "node" | "nodejs" | "MainThread" | "node-MainThread" => Self::Node,
            "python" | "pypy" => Self::Python,
            "java" => Self::Java,
            "ruby" => Self::Ruby,
            "perl" => Self::Perl,
            "php" | "php-cgi" => Self::Php,
            "php-fpm" => Self::PhpFpm,
            "sh" | "bash" | "dash" => Self::Shell,
            "deno" => Self::Deno,
            "bun" => Self::Bun,
            "dotnet" => Self::Dotnet,
            "beam.smp" => Self::Erlang,
            _ => return None,
        })
    }

    /// The name of the interpreter itself, from the base name of its file.
    pub(super) fn name(self, base: &str) -> &str {
        match self {
            Self::PhpFpm => "php-fpm",
            Self::Node => "node",
            _ => base,
        }
    }
}

/// What an interpreter of `language` runs with these arguments (without its own name).
pub(super) fn program(language: Language, arguments: &[String]) -> Option<ProgramName> {
    match language {
        Language::Node => node::node(arguments),
        Language::Python => python::python(arguments),
        Language::Java => java(arguments),
        Language::Ruby => ruby(arguments),
        Language::Perl => plain(&PERL, arguments),
        Language::Php => plain(&PHP, arguments),
        Language::PhpFpm => None,
        Language::Shell => shell::program(arguments),
        Language::Deno => deno(arguments),
        Language::Bun => bun(arguments),
        Language::Dotnet => dotnet(arguments),
        Language::Erlang => erlang(arguments),
    }
}

/// The same from a title: arguments that were joined by spaces and split again. Only what precedes
/// every value can be distinguished from a value.
pub(super) fn program_in_title(language: Language, words: &[String]) -> Option<ProgramName> {
    let flags = match language {
        Language::Node => &NODE,
        Language::Python => &PYTHON,
        Language::Java => &JAVA,
        Language::Ruby => &RUBY,
        Language::Perl => &PERL,
        Language::Php => &PHP,
        Language::Shell => return shell::script_in_title(words),
        Language::PhpFpm | Language::Deno | Language::Bun | Language::Dotnet | Language::Erlang => {
            return None;
        }
    };
    match flags.target_in_title(words) {
        Target::Script(path, _) if language == Language::Python => python::python_script(path),
        Target::Script(path, _) | Target::Named(path, _) => ProgramName::of(path),
        Target::Nameless => None,
    }
}

/// `node .` runs the `index.js` of the working directory.
fn in_directory(path: &str, script: &str) -> Option<ProgramName> {
    matches!(path, "." | "./").then(|| ProgramName::of(script)).flatten()
}

fn java(arguments: &[String]) -> Option<ProgramName> {
    // Argument files (`@file`) are not read.
    let arguments: Vec<String> =
        arguments.iter().filter(|argument| !argument.starts_with('@')).cloned().collect();
    match JAVA.target(&arguments) {
        Target::Script(path, _) | Target::Named(path, _) => {
            // A jar's path, `module/class`, a class: the name is what follows the last slash.
            // `shop.Main$` is a Scala object.
            ProgramName::of(path.split('$').next().unwrap_or(path))
        }
        Target::Nameless => None,
    }
}

fn ruby(arguments: &[String]) -> Option<ProgramName> {
    match RUBY.target(arguments) {
        Target::Script(path, rest) if basename(path) == "bundle" => match rest {
            [exec, program, ..] if exec == "exec" => ProgramName::of(program),
            _ => None,
        }
        .or_else(|| ProgramName::of("bundle")),
        _ => plain(&RUBY, arguments),
    }
}

fn deno(arguments: &[String]) -> Option<ProgramName> {
    match DENO.target(arguments) {
        Target::Script("run" | "serve", rest) => match DENO.target(rest) {
            Target::Script(script, _) => deno_script(script),
            _ => None,
        },
        Target::Script("task", rest) => match DENO.target(rest) {
            Target::Script(task, _) => ProgramName::task("deno", task),
            _ => None,
        },
        Target::Script(script, _) if script.contains(['.', '/']) => deno_script(script),
        _ => None,
    }
}

/// A file, a URL, or a package: `npm:serve`.
fn deno_script(script: &str) -> Option<ProgramName> {
    let package = script.strip_prefix("npm:").or_else(|| script.strip_prefix("jsr:"));
    ProgramName::of_url(script).or_else(|| ProgramName::of(package.unwrap_or(script)))
}

fn bun(arguments: &[String]) -> Option<ProgramName> {
    let script = match BUN.target(arguments) {
        Target::Script("run" | "x", rest) => match BUN.target(rest) {
            Target::Script(script, _) => script,
            _ => return None,
        },
        Target::Script(script, _) => script,
        _ => return None,
    };
    let is_file = script.contains(['.', '/']);
    if is_file { ProgramName::of(script) } else { ProgramName::task("bun", script) }
}

fn dotnet(arguments: &[String]) -> Option<ProgramName> {
    match DOTNET.target(arguments) {
        Target::Script("exec", rest) => plain(&DOTNET, rest),
        Target::Script("run" | "watch", rest) => match DOTNET.target(rest) {
            Target::Named(project, _) => ProgramName::of(project),
            _ => None,
        },
        Target::Script(path, _) if path.contains('.') => ProgramName::of(path),
        _ => None,
    }
}

/// `-sname rabbit@host` is the name of an Erlang node, and so of the application.
fn erlang(arguments: &[String]) -> Option<ProgramName> {
    let at = arguments.iter().position(|argument| argument == "-sname" || argument == "-name")?;
    ProgramName::of(arguments.get(at + 1)?.split('@').next()?)
}

fn plain(flags: &Flags, arguments: &[String]) -> Option<ProgramName> {
    match flags.target(arguments) {
        Target::Script(path, _) | Target::Named(path, _) => ProgramName::of(path),
        Target::Nameless => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::process::process_name;

    /// Arguments are separated by `|` here.
    fn check(argv: &str, expected: &str) {
        let comm: String = argv.split('|').next().map(super::basename).into_iter().collect();
        let found = process_name(&comm, argv.replace('|', "\0").as_bytes());
        assert_eq!(found, expected, "{argv}");
    }

    #[test]
    fn node() {
        check("node|server.js", "server.js");
        check("/usr/bin/node|--inspect=0.0.0.0:9229|/srv/shop/index.js|--port|80", "shop");
        check("node|-r|dotenv/config|--require|./tracing.js|app.js", "app.js");
        check("node|--import|tsx|--env-file=.env|src/main.ts", "main.ts");
        check("node|--max-old-space-size=4096|--|x.js", "x.js");
        check("node|-e|require('http')", "node");
        check("node", "node");
        check("node|/usr/lib/node_modules/npm/bin/npm-cli.js|run|start", "npm start");
        check("node|/usr/bin/npm|--silent|start", "npm start");
        check("node|/usr/bin/npx|serve|-p|80", "serve");
        check("node|/usr/share/yarn/bin/yarn.js|dev", "yarn dev");
        check("node|/app/node_modules/.bin/ts-node|-r|x|src/web.ts", "web.ts");
        check("node|/app/node_modules/.bin/next|start", "next");
        check("node|--run|start", "node start");
        check("node|.", "index.js");
        check("node|/srv/shop", "shop");
    }

    #[test]
    fn python() {
        check("python|/srv/x/app.py", "x");
        check("python|app.py", "app.py");
        check("python|.", "__main__.py");
        check("python3|/usr/bin/gunicorn|-n|mail|shop:app", "mail");
        check("python3|/usr/bin/gunicorn|--name=a b|shop:app", "gunicorn");
        check("python3.11|-u|-W|ignore|-X|dev|manage.py|runserver", "manage.py");
        check("python3|-Wignore|-Xdev|main.py", "main.py");
        check("python3|-m|app.web", "app.web");
        check("python3|-um|http.server|8000", "http.server");
        check("python3|-c|import time", "python3");
        check("python3|-", "python3");
        check("python3|/srv/shop/__main__.py", "shop");
        check("python3|/srv/shop/", "shop");
        check("python3|/usr/bin/gunicorn|-w|4|-b|0.0.0.0:80|shop.wsgi:application", "shop.wsgi");
        check("python3|/usr/bin/gunicorn|-b|localhost:8000|app:create_app('x')", "app");
        check("python3|/usr/bin/gunicorn|-c|file:conf|-b|unix:/run/x.sock", "gunicorn");
        check("python3|-m|uvicorn|app.main:app|--host|0.0.0.0", "app.main");
        check("python3|/usr/bin/uvicorn|app:app|--host|::", "app");
        check("python3|/usr/bin/celery|-A|shop.tasks|worker", "shop.tasks");
        check("python3|-m|flask|--app=shop:create|run", "shop");
        check("python3|-m|flask|run", "flask");
        check("pypy3|bot.py", "bot.py");
    }

    #[test]
    fn java() {
        check("java|-Xmx1g|-cp|a:b|com.shop.Main|arg", "com.shop.Main");
        check("java|-Dx=y|-jar|/opt/x.jar", "x.jar");
        check("java|--module-path|/m|--module|shop/com.shop.Main", "com.shop.Main");
        check("java|-p|/m|--add-modules=ALL|-m|shop", "shop");
        check("java|@args|-javaagent:/a.jar|org.Main", "org.Main");
        check("java|-cp", "java");
        check("java|-version", "java");
        check("java|-Xmx1g|/srv/shop/Main.java|80", "shop");
        check("java|--password|hunter2|Orders.java", "java");
    }

    #[test]
    fn scripts() {
        check("ruby|-I|lib|-rbundler/setup|/srv/app.rb", "app.rb");
        check("ruby3.1|/usr/bin/bundle|exec|/usr/bin/puma|-C|x", "puma");
        check("ruby|-e|puts", "ruby");
        check("perl|-w|-I/lib|-MFoo|/usr/bin/spamd|-d", "spamd");
        check("perl|-ne|print", "perl");
        check("php|-d|x=y|/srv/artisan|serve", "artisan");
        check("php|-S|0.0.0.0:80|-t|public|router.php", "router.php");
        check("php|-f|cron.php", "cron.php");
        check("php8.2|-r|echo 1;", "php8.2");
    }

    #[test]
    fn shells() {
        check("bash|/srv/run.sh|x", "run.sh");
        check("sh|-e|run.sh", "run.sh");
        check("sh|-c|exec /usr/sbin/nginx -g 'daemon off;'", "nginx");
        check("bash|-lc|cd /srv && PORT=80 ./serve --x", "serve");
        check("sh|-ec|while true; do curl -s http://x; sleep 1; done", "curl");
        check("bash|-o|pipefail|-c|set -e\nwget x", "wget");
        check("bash|--rcfile|/x|run.sh", "run.sh");
        check("sh|-c|cd /", "sh");
        check("sh|-s|arg", "sh");
        check("bash", "bash");
        check("dash|-c", "dash");
    }

    #[test]
    fn others() {
        check("dotnet|/app/Shop.Web.dll|--urls|x", "Shop.Web.dll");
        check("dotnet|exec|--depsfile|x.json|Shop.dll", "Shop.dll");
        check("dotnet|run|--project|src/Shop", "Shop");
        check("dotnet|run", "dotnet");
        check("deno|run|--allow-net|--config|x.json|https://example.org/serve.ts", "serve.ts");
        check("deno|task|start", "deno start");
        check("deno|main.ts", "main.ts");
        check("deno|repl", "deno");
        check("bun|run|start", "bun start");
        check("bun|--hot|run|src/web.ts", "web.ts");
        check("bun|server.ts", "server.ts");
        check("beam.smp|-W|w|--|-root|/x|-sname|rabbit@box", "rabbit");
        check("beam.smp|-W", "beam.smp");
    }
}
