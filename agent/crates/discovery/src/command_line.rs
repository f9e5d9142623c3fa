//! What an interpreter runs, from its arguments: the script, module or class behind the flags.
//!
//! Web servers that load an application (`gunicorn shop.wsgi:app`) are called by it.

use super::flags::{BUN, DENO, DOTNET, Flags, JAVA, NODE, PERL, PHP, PYTHON, RUBY, Target};
use super::process::basename;

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

    /// What to call the interpreter itself, whose file is called `base`.
    pub(super) fn name(self, base: &str) -> &str {
        match self {
            Self::PhpFpm => "php-fpm",
            Self::Node => "node",
            _ => base,
        }
    }
}

/// What an interpreter of `language` runs with these arguments (its own name left out).
pub(super) fn program(language: Language, arguments: &[String]) -> Option<String> {
    match language {
        Language::Node => node(arguments),
        Language::Python => python(arguments),
        Language::Java => java(arguments),
        Language::Ruby => ruby(arguments),
        Language::Perl => plain(&PERL, arguments),
        Language::Php => plain(&PHP, arguments),
        Language::PhpFpm => None,
        Language::Shell => shell(arguments),
        Language::Deno => deno(arguments),
        Language::Bun => bun(arguments),
        Language::Dotnet => dotnet(arguments),
        Language::Erlang => erlang(arguments),
    }
}

/// `npm run start` and `npm start` → `npm start`; for yarn and pnpm alike. `None` if the command
/// is none of them.
pub(super) fn package_script(command: &str) -> Option<String> {
    let words: Vec<String> = command.split_ascii_whitespace().map(str::to_owned).collect();
    let (tool, rest) = words.split_first()?;
    matches!(tool.as_str(), "npm" | "yarn" | "pnpm").then(|| package_tool(tool, rest))
}

fn package_tool(tool: &str, arguments: &[String]) -> String {
    let mut words = arguments.iter().filter(|word| !word.starts_with('-'));
    let script = match words.next().map(String::as_str) {
        Some("run" | "run-script" | "exec" | "x" | "dlx") => words.next().map(String::as_str),
        first => first,
    };
    script.map_or_else(|| tool.to_owned(), |script| format!("{tool} {script}"))
}

fn node(arguments: &[String]) -> Option<String> {
    match NODE.target(arguments) {
        Target::Named(script, _) => Some(format!("node {script}")),
        Target::Nameless => None,
        Target::Script(script, rest) => {
            let base = basename(script);
            Some(match base.split('.').next().unwrap_or(base) {
                "npm-cli" | "npm" => package_tool("npm", rest),
                "yarn" | "yarnpkg" => package_tool("yarn", rest),
                "pnpm" => package_tool("pnpm", rest),
                "npx-cli" | "npx" | "ts-node" | "ts-node-dev" | "tsx" | "nodemon"
                | "babel-node" | "inspect" => {
                    return plain(&NODE, rest).or_else(|| Some(base.to_owned()));
                }
                _ => base.to_owned(),
            })
        }
    }
}

fn python(arguments: &[String]) -> Option<String> {
    match PYTHON.target(arguments) {
        Target::Named(module, rest) => Some(python_application(module, rest)),
        Target::Script(path, rest) => match basename(path) {
            // `python /srv/shop` runs the folder's __main__.py.
            "__main__.py" => Some(basename(path.trim_end_matches("/__main__.py")).to_owned()),
            base => Some(python_application(base, rest)),
        },
        Target::Nameless => None,
    }
}

/// Application servers are called by the application they load: `uvicorn shop.web:app` is
/// `shop.web`, as `python -m shop.web` is.
fn python_application(program: &str, arguments: &[String]) -> String {
    let application = match program {
        "gunicorn" | "uvicorn" | "hypercorn" | "daphne" | "granian" | "waitress-serve"
        | "waitress" => arguments.iter().rev().find_map(|argument| application(argument)),
        "flask" | "celery" => arguments
            .iter()
            .position(|argument| argument == "-A" || argument == "--app")
            .and_then(|at| arguments.get(at + 1))
            .map(String::as_str)
            .or_else(|| arguments.iter().find_map(|argument| argument.strip_prefix("--app=")))
            .and_then(|value| value.split(':').next()),
        _ => None,
    };
    application.filter(|name| !name.is_empty()).unwrap_or(program).to_owned()
}

/// The module in `module.path:attribute`; `localhost:8000` and `unix:/run/x` are none.
fn application(argument: &str) -> Option<&str> {
    let (module, attribute) = argument.split_once(':')?;
    let starts_well = |text: &str| text.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let is_name = |text: &str| {
        starts_well(text) && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'))
    };
    let attribute = attribute.split('(').next().unwrap_or(attribute);
    (is_name(module) && is_name(attribute) && !matches!(module, "file" | "python"))
        .then_some(module)
}

fn java(arguments: &[String]) -> Option<String> {
    // Files of further arguments are not read.
    let arguments: Vec<String> =
        arguments.iter().filter(|argument| !argument.starts_with('@')).cloned().collect();
    // A jar's path, `module/class`, a class: the name is what follows the last slash.
    plain(&JAVA, &arguments)
}

fn ruby(arguments: &[String]) -> Option<String> {
    match RUBY.target(arguments) {
        Target::Script(path, rest) if basename(path) == "bundle" => {
            let mut words = rest.iter().filter(|word| !word.starts_with('-'));
            match (words.next().map(String::as_str), words.next()) {
                (Some("exec"), Some(program)) => Some(basename(program).to_owned()),
                _ => Some("bundle".into()),
            }
        }
        _ => plain(&RUBY, arguments),
    }
}

fn deno(arguments: &[String]) -> Option<String> {
    match DENO.target(arguments) {
        Target::Script("run" | "serve", rest) => plain(&DENO, rest),
        Target::Script("task", rest) => plain(&DENO, rest).map(|task| format!("deno {task}")),
        Target::Script(script, _) if script.contains(['.', '/']) => {
            Some(basename(script).to_owned())
        }
        _ => None,
    }
}

fn bun(arguments: &[String]) -> Option<String> {
    let script = match BUN.target(arguments) {
        Target::Script("run" | "x", rest) => match BUN.target(rest) {
            Target::Script(script, _) => script,
            _ => return None,
        },
        Target::Script(script, _) => script,
        _ => return None,
    };
    let is_file = script.contains(['.', '/']);
    Some(if is_file { basename(script).to_owned() } else { format!("bun {script}") })
}

fn dotnet(arguments: &[String]) -> Option<String> {
    match DOTNET.target(arguments) {
        Target::Script("exec", rest) => plain(&DOTNET, rest),
        Target::Script("run" | "watch", rest) => match DOTNET.target(rest) {
            Target::Named(project, _) => Some(basename(project).to_owned()),
            _ => None,
        },
        Target::Script(path, _) if path.contains('.') => Some(basename(path).to_owned()),
        _ => None,
    }
}

/// An Erlang node has a name: `-sname rabbit@host`.
fn erlang(arguments: &[String]) -> Option<String> {
    let at = arguments.iter().position(|argument| argument == "-sname" || argument == "-name")?;
    let node = arguments.get(at + 1)?.split('@').next()?;
    (!node.is_empty()).then(|| node.to_owned())
}

fn shell(arguments: &[String]) -> Option<String> {
    let mut is_command = false;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let name = |text: &str| {
            if is_command { first_command(text) } else { Some(basename(text).to_owned()) }
        };
        match argument.strip_prefix(['-', '+']) {
            None => return name(argument),
            Some("-") => return name(rest.next()?),
            Some("" | "s") => return None,
            Some("-rcfile" | "-init-file") => drop(rest.next()),
            Some(long) if long.starts_with('-') => {}
            Some(letters) => {
                is_command |= letters.contains('c');
                if letters.ends_with(['o', 'O']) {
                    rest.next();
                }
            }
        }
    }
    None
}

/// The first program in a shell command, past assignments, keywords and built-ins.
fn first_command(text: &str) -> Option<String> {
    text.split(['\n', ';', '&', '|', '(', ')', '{', '}']).find_map(|part| {
        let word = part.split_ascii_whitespace().find(|word| {
            let is_prefix = matches!(
                *word,
                "exec"
                    | "nohup"
                    | "env"
                    | "command"
                    | "time"
                    | "setsid"
                    | "!"
                    | "do"
                    | "then"
                    | "else"
                    | "if"
                    | "while"
                    | "until"
            );
            let is_assignment = word.split_once('=').is_some_and(|(name, _)| {
                name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            });
            !is_prefix && !is_assignment
        })?;
        let is_builtin = matches!(
            word,
            "cd" | "set"
                | "export"
                | "source"
                | "."
                | "ulimit"
                | "umask"
                | "trap"
                | "eval"
                | "["
                | "[["
                | "test"
                | "echo"
                | "printf"
                | "sleep"
                | "true"
                | "false"
                | ":"
                | "shopt"
                | "wait"
                | "read"
                | "local"
                | "for"
                | "case"
                | "done"
                | "fi"
                | "esac"
                | "unset"
        );
        let name = basename(word.trim_matches(['"', '\'']));
        (!is_builtin && !name.is_empty()).then(|| name.to_owned())
    })
}

fn plain(flags: &Flags, arguments: &[String]) -> Option<String> {
    match flags.target(arguments) {
        Target::Script(path, _) | Target::Named(path, _) => {
            Some(basename(path).to_owned()).filter(|name| !name.is_empty())
        }
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
        check("/usr/bin/node|--inspect=0.0.0.0:9229|/srv/shop/index.js|--port|80", "index.js");
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
    }

    #[test]
    fn python() {
        check("python|/srv/x/app.py", "app.py");
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
