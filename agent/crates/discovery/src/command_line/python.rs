//! What Python runs: a script, a module, or the application that a web server loads.

use super::in_directory;
use crate::flags::{PYTHON, Target};
use crate::program_name::{ProgramName, basename};

/// Flags of Python's application servers that take no value.
const SERVER_BARE: &str = "-D -R -S --reload --preload --daemon --factory --proxy-headers \
    --proxy-protocol --capture-output --use-colors --ws --spew --access-log --debug";

pub(super) fn python(arguments: &[String]) -> Option<ProgramName> {
    match PYTHON.target(arguments) {
        Target::Named(module, rest) => {
            python_application(module, rest).or_else(|| ProgramName::of(module))
        }
        Target::Script(path, rest) => {
            python_application(basename(path), rest).or_else(|| python_script(path))
        }
        Target::Nameless => None,
    }
}

/// Whether Python runs what another process of the same program handed to it: a worker of
/// `multiprocessing`.
pub(crate) fn is_worker(arguments: &[String]) -> bool {
    let mut code = arguments.iter().skip_while(|argument| *argument != "-c").skip(1);
    code.next().is_some_and(|code| {
        ["from multiprocessing.spawn ", "from multiprocessing.forkserver "]
            .iter()
            .any(|start| code.starts_with(start))
    })
}

/// `python /srv/shop` runs the folder's `__main__.py`.
pub(super) fn python_script(path: &str) -> Option<ProgramName> {
    let folder = path.strip_suffix("/__main__.py").unwrap_or(path);
    in_directory(folder, "__main__.py").or_else(|| ProgramName::of(folder))
}

/// Application servers are named after the application they load: `uvicorn shop.web:app` is
/// `shop.web`, as `python -m shop.web` is.
fn python_application(program: &str, arguments: &[String]) -> Option<ProgramName> {
    let application = match program {
        // Its titles have this name, too.
        "gunicorn" if value_of(["-n", "--name"], arguments).is_some() => {
            value_of(["-n", "--name"], arguments)
        }
        "gunicorn" | "uvicorn" | "hypercorn" | "daphne" | "granian" | "waitress-serve"
        | "waitress" => application(arguments),
        "flask" | "celery" => value_of(["-A", "--app"], arguments),
        _ => None,
    };
    application.and_then(application_name)
}

/// The value of a flag, in its short or its long form.
fn value_of<'a>([short, long]: [&str; 2], arguments: &'a [String]) -> Option<&'a str> {
    let next = arguments.iter().position(|argument| argument == short || argument == long);
    let next = next.and_then(|at| arguments.get(at + 1)).map(String::as_str);
    next.or_else(|| {
        let joined = |argument: &'a String| argument.strip_prefix(long)?.strip_prefix('=');
        arguments.iter().find_map(joined)
    })
}

/// The application in `shop.wsgi:app`, `shop.wsgi`, or a name that was given to it.
pub(crate) fn application_name(text: &str) -> Option<ProgramName> {
    match text.split_once(':') {
        Some(_) => ProgramName::word(module_of(text)?),
        None => ProgramName::word(text),
    }
}

/// `module.path:attribute`, if that is the first argument that cannot be a flag's value.
/// `localhost:8000` and `unix:/run/x` are not applications.
fn application(arguments: &[String]) -> Option<&str> {
    let mut is_doubtful = false;
    let argument = arguments.iter().find(|argument| {
        if argument.starts_with('-') {
            let is_bare = argument.starts_with("--no-")
                || SERVER_BARE.split_ascii_whitespace().any(|one| one == argument.as_str());
            // `-w4` has its value.
            let is_bundle = !argument.starts_with("--") && argument.len() > 2;
            is_doubtful = !(is_bare || is_bundle || argument.contains('='));
            return false;
        }
        !std::mem::take(&mut is_doubtful)
    })?;
    module_of(argument).is_some().then_some(argument)
}

/// The module of `module.path:attribute`.
fn module_of(argument: &str) -> Option<&str> {
    let (module, attribute) = argument.split_once(':')?;
    let starts_well = |text: &str| text.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let is_name = |text: &str| {
        starts_well(text) && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'))
    };
    let attribute = attribute.split('(').next().unwrap_or(attribute);
    (is_name(module) && is_name(attribute) && !matches!(module, "file" | "python"))
        .then_some(module)
}
