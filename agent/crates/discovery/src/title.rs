//! Process titles: what a program writes over its own arguments.
//!
//! Some describe the program (`puma 6.4.0 (tcp://0.0.0.0:3000) [shop]`), some are the command line
//! joined by spaces, as setproctitle writes at first. A name is the application, where the format
//! of the program's titles is known, else the first word, or the script behind an interpreter;
//! nothing else in a title can be distinguished from the value of an argument.

use super::command_line::{self, Language};
use super::program_name::{ProgramName, basename};

/// First words of titles that programs set while their command name remains the interpreter's.
/// Another first word may be anything: `exec -a`, arguments that were overwritten.
const KNOWN: &[&str] = &[
    "PM2",
    "Passenger",
    "WorkerMan",
    "airflow",
    "celery",
    "celeryd",
    "clockwork",
    "daphne",
    "delayed_job",
    "foreman",
    "good_job",
    "gunicorn",
    "hypercorn",
    "hypnotoad",
    "munin-node",
    "next-server",
    "npm",
    "php-fpm",
    "pnpm",
    "puma",
    "rails",
    "rainbows",
    "rake",
    "resque",
    "ruby-server",
    "sidekiq",
    "solid-queue-dispatcher",
    "solid-queue-scheduler",
    "solid-queue-supervisor",
    "solid-queue-worker",
    "spamd",
    "spring",
    "starman",
    "swoole",
    "thin",
    "unicorn",
    "uvicorn",
    "yarn",
];

/// The name in the title of a program whose command name is a title too.
pub(super) fn of_program(title: &str) -> Option<ProgramName> {
    if let Some(name) = application(title).or_else(|| command_line::package_script(title)) {
        return Some(name);
    }
    let mut words = title.split_whitespace().map(str::to_owned);
    let first = words.next()?;
    let base = basename(&first);
    match Language::of(base) {
        Some(language) => {
            let rest: Vec<String> = words.collect();
            command_line::program_in_title(language, &rest)
                .or_else(|| ProgramName::of(language.name(base)))
        }
        None if first.starts_with('/') => ProgramName::of(&first),
        None => head(&first),
    }
}

/// The name in the title of a program whose command name is an interpreter's.
pub(super) fn of_interpreter(title: &str) -> Option<ProgramName> {
    let first = title.split_whitespace().next()?;
    let word = unbracketed(first);
    let is_known = KNOWN.iter().any(|known| {
        // `resque-2.0.0:`, `delayed_job.0`, `unicorn_rails`, `solid-queue-worker(1.0):`
        word.strip_prefix(known).is_some_and(|rest| {
            let rest = rest.trim_start_matches("_rails").trim_start_matches(['-', '.', '(']);
            rest.chars().all(|c| c.is_ascii_digit() || c == '.') && rest.len() < 9
        })
    });
    (is_known || Language::of(basename(first)).is_some()).then(|| of_program(title)).flatten()
}

/// The name in a command name that is not an identifier: a title, the first bytes of one, or the
/// name of a kernel thread (`kworker/0:1`).
pub(super) fn of_command(comm: &str, is_cut: bool) -> Option<ProgramName> {
    let is_word = !comm.trim().contains(char::is_whitespace);
    if is_word && !comm.starts_with('/') {
        let thread = comm.split_once('/').map(|(thread, _)| thread);
        return ProgramName::of(thread.unwrap_or_else(|| unbracketed(comm)));
    }
    // Half a word would be a wrong name, but half a path still ends in something valid.
    let whole = if is_cut && !is_word { comm.rsplit_once(char::is_whitespace)?.0 } else { comm };
    of_program(whole)
}

/// The application in a title of gunicorn, puma or celery, in the forms that these write:
/// `gunicorn: worker [shop.wsgi:app]`, `puma 6.4.0 (tcp://0.0.0.0:80) [shop]`,
/// `puma: cluster worker 0: 4711 [shop]`,
/// `[celeryd: celery@host:MainProcess] -active- (-A shop worker)`.
pub(super) fn application(title: &str) -> Option<ProgramName> {
    let title = title.trim_end();
    if let Some(rest) = title.strip_prefix("gunicorn: ") {
        let (role, name) = rest.strip_suffix(']')?.split_once(" [")?;
        let is_role = matches!(role, "master" | "worker");
        return is_role.then(|| command_line::application_name(name)).flatten();
    }
    if let Some(rest) = title.strip_prefix("puma: cluster worker ") {
        let (numbers, tag) = rest.strip_suffix(']')?.split_once(" [")?;
        let is_number = |c: char| c.is_ascii_digit() || matches!(c, ':' | ' ');
        return numbers.chars().all(is_number).then(|| ProgramName::word(tag)).flatten();
    }
    if let Some(rest) = title.strip_prefix("puma ") {
        let (version, rest) = rest.strip_suffix(']')?.split_once(" (")?;
        let (_, tag) = rest.split_once(") [")?;
        return (!version.contains(' ')).then(|| ProgramName::word(tag)).flatten();
    }
    let (_, arguments) = title.strip_prefix("[celeryd: ")?.split_once("] -active- (")?;
    let mut words = arguments.trim_end_matches(')').split_whitespace();
    let first = words.find(|word| *word != "worker")?;
    let module = match first {
        "-A" | "--app" => words.next()?,
        _ => first.strip_prefix("--app=")?,
    };
    command_line::application_name(module)
}

/// Whether a title is that of a worker, which only its parent's title says the application of.
pub(super) fn is_worker(title: &str) -> bool {
    title.starts_with("[celeryd: ") && !title.contains("] -active- (")
}

/// The first word of a title.
fn head(word: &str) -> Option<ProgramName> {
    let word = unbracketed(word);
    let word = word.split_once('(').map_or(word, |(word, _)| word);
    ProgramName::of(word).filter(|_| !word.contains('/'))
}

/// `[celeryd:`, `(sd-pam)`, `nginx:`
fn unbracketed(word: &str) -> &str {
    word.trim_start_matches(['[', '(']).trim_end_matches([':', ')', ']', ','])
}
