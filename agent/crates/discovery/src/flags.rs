//! Interpreters' flags: what to skip on the way to the script.
//!
//! Each language lists the flags that take a value, because what follows `-r` is not the script,
//! and those that take none. The argument after a flag in neither list may be a password, so it is
//! taken for a script only if it ends like a source file.

mod languages;

pub(super) use self::languages::{
    BUN, DENO, DOTNET, JAVA, LOADER, NODE, NPX, PERL, PHP, PYTHON, RUBY,
};
use super::program_name::basename;

/// Flags of an interpreter. Words are whole flags; letters may be bundled (`-um mod`), and their
/// value may follow at once or as the next argument.
pub(super) struct Flags {
    /// Whole flags with a value, separated by spaces.
    value: &'static str,
    /// Whole flags whose value is the program to run.
    runs: &'static str,
    /// Whole flags that are followed by code.
    code: &'static str,
    /// Whole flags without a value, or with one that follows at once (`--inspect*`).
    bare: &'static str,
    /// `None`: flags with one dash are words (`-cp`), not bundles of letters.
    letters: Option<Letters>,
}

struct Letters {
    value: &'static str,
    runs: &'static str,
    code: &'static str,
    /// Letters that take the rest of their bundle, but never the next argument.
    attached: &'static str,
    /// Letters without a value.
    bare: &'static str,
}

/// How source files end.
const SOURCES: &str =
    "js mjs cjs jsx ts mts cts tsx py pyc pyz rb ru pl psgi php phar java jar dll";

/// What follows the flags.
pub(super) enum Target<'a> {
    /// A script, or a sub-command, and what follows it.
    Script(&'a str, &'a [String]),
    /// The value of a flag that names the program, and what follows it.
    Named(&'a str, &'a [String]),
    /// Code, standard input, nothing.
    Nameless,
}

// === impl Flags ===

impl Flags {
    /// Skips flags and their values.
    pub(super) fn target<'a>(&self, arguments: &'a [String]) -> Target<'a> {
        self.walk(arguments, false)
    }

    /// The same in a title: arguments that were joined by spaces and split again. A value may have
    /// contained spaces, so everything after the first value is uncertain.
    pub(super) fn target_in_title<'a>(&self, words: &'a [String]) -> Target<'a> {
        self.walk(words, true)
    }

    fn walk<'a>(&self, arguments: &'a [String], is_title: bool) -> Target<'a> {
        let mut rest = arguments;
        let mut is_doubtful = false;
        while let Some((argument, after)) = rest.split_first() {
            rest = after;
            if listed(self.code, argument) {
                return Target::Nameless;
            }
            let Some(bundle) = argument.strip_prefix('-') else {
                return script(argument, rest, is_doubtful);
            };
            if argument == "--" {
                return match rest.split_first() {
                    Some((argument, rest)) => script(argument, rest, is_doubtful),
                    None => Target::Nameless,
                };
            }
            let value = match &self.letters {
                Some(letters) if !bundle.starts_with('-') => letters.value(bundle),
                _ => self.word(argument),
            };
            let named = |name: &'a str, rest: &'a [String]| match (
                is_title && is_doubtful,
                is_source(name),
            ) {
                (false, _) => Target::Named(name, rest),
                (true, true) => Target::Named(basename(name), rest),
                (true, false) => Target::Nameless,
            };
            match value {
                Value::None => is_doubtful &= is_title,
                Value::Attached => is_doubtful = is_title,
                Value::Perhaps => is_doubtful = true,
                Value::Skip => {
                    is_doubtful = is_title;
                    rest = rest.get(1..).unwrap_or_default();
                }
                Value::Code => return Target::Nameless,
                Value::Runs(Some(name)) => return named(name, rest),
                Value::Runs(None) => {
                    return match rest.split_first() {
                        Some((name, rest)) => named(name, rest),
                        None => Target::Nameless,
                    };
                }
            }
        }
        Target::Nameless
    }

    fn word<'a>(&self, argument: &'a str) -> Value<'a> {
        let (flag, value) = match argument.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (argument, None),
        };
        if listed(self.code, flag) {
            Value::Code
        } else if listed(self.runs, flag) {
            Value::Runs(value)
        } else if value.is_some() {
            Value::Attached
        } else if listed(self.value, flag) {
            Value::Skip
        } else {
            bare(self.bare, flag)
        }
    }
}

fn script<'a>(argument: &'a str, rest: &'a [String], is_doubtful: bool) -> Target<'a> {
    match (is_doubtful, is_source(argument)) {
        (false, _) => Target::Script(argument, rest),
        // Its directories may be part of a value.
        (true, true) => Target::Script(basename(argument), rest),
        (true, false) => Target::Nameless,
    }
}

/// Whether a path ends like a source file, or a file compiled from one.
pub(super) fn is_source(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, end)| listed(SOURCES, end))
}

/// Of a flag that takes no value from the next argument, or is not known.
fn bare<'a>(flags: &str, flag: &str) -> Value<'a> {
    let mut known = flags.split_ascii_whitespace().map(|one| match one.strip_suffix('*') {
        Some(start) => flag.strip_prefix(start).map(str::is_empty),
        None => (one == flag).then_some(true),
    });
    match known.find_map(|found| found) {
        Some(true) => Value::None,
        Some(false) => Value::Attached,
        None => Value::Perhaps,
    }
}

/// What a flag says about the next argument.
enum Value<'a> {
    None,
    /// Its value is here.
    Attached,
    /// Unknown flag: the next argument may be its value.
    Perhaps,
    /// The next argument is its value.
    Skip,
    Code,
    /// The program: in this argument, or the next.
    Runs(Option<&'a str>),
}

impl Letters {
    fn value<'a>(&self, bundle: &'a str) -> Value<'a> {
        if bundle.is_empty() {
            return Value::Code; // A lone dash: the program comes from standard input.
        }
        for (at, letter) in bundle.char_indices() {
            let rest = bundle.get(at + letter.len_utf8()..).filter(|rest| !rest.is_empty());
            if self.runs.contains(letter) {
                return Value::Runs(rest);
            }
            if self.code.contains(letter) {
                return Value::Code;
            }
            if self.value.contains(letter) {
                return if rest.is_some() { Value::Attached } else { Value::Skip };
            }
            if self.attached.contains(letter) {
                return Value::Attached;
            }
            if !self.bare.contains(letter) {
                return Value::Perhaps;
            }
        }
        Value::None
    }
}

fn listed(flags: &str, flag: &str) -> bool {
    flags.split_ascii_whitespace().any(|one| one == flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(flags: &Flags, line: &str, expected: Option<(&str, usize)>) {
        let arguments: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
        let found = match flags.target(&arguments) {
            Target::Script(name, rest) | Target::Named(name, rest) => Some((name, rest.len())),
            Target::Nameless => None,
        };
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn values_are_skipped_wherever_they_stand() {
        check(&NODE, "-r a --import b --title=c x.js d e", Some(("x.js", 2)));
        check(&PYTHON, "-W a -Xb -uOW c x.py d", Some(("x.py", 1)));
        check(&PYTHON, "-um a.b c", Some(("a.b", 1)));
        check(&PYTHON, "-ma.b c", Some(("a.b", 1)));
        check(&PYTHON, "-uc code x.py", None);
        check(&PERL, "-i.bak -0777 -Mx -I lib x.pl", Some(("x.pl", 0)));
        check(&JAVA, "-cp a -jar b.jar c", Some(("b.jar", 1)));
        check(&JAVA, "--module=m/c d", Some(("m/c", 1)));
        check(&NODE, "-- x", Some(("x", 0)));
        check(&NODE, "-r", None);
        check(&JAVA, "-jar", None);
        check(&PYTHON, "-", None);
        check(&PHP, "--", None);
    }

    #[test]
    fn behind_an_unknown_flag_only_a_source_file_is_a_script() {
        check(&NODE, "--password hunter2 x.js", None);
        check(&NODE, "--some-flag x.js", Some(("x.js", 0)));
        check(&NODE, "--some-flag --inspect x", Some(("x", 0)));
        check(&NODE, "--some-flag=hunter2 x", Some(("x", 0)));
        check(&NODE, "--trace-warnings server", Some(("server", 0)));
        check(&PYTHON, "-uk hunter2", None);
        check(&PYTHON, "--env hunter2", None);
        check(&PERL, "-wq hunter2", None);
        check(&JAVA, "-password hunter2", None);
        check(&JAVA, "-Xmx1g -XX:+UseZGC -Da=b com.shop.Main", Some(("com.shop.Main", 0)));
    }

    #[test]
    fn in_a_title_nothing_is_certain_behind_a_value() {
        let check = |flags: &Flags, line: &str, expected: Option<&str>| {
            let words: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
            let found = match flags.target_in_title(&words) {
                Target::Script(name, _) | Target::Named(name, _) => Some(name),
                Target::Nameless => None,
            };
            assert_eq!(found, expected, "{line}");
        };
        check(&NODE, "/srv/x --password hunter2", Some("/srv/x"));
        check(&NODE, "--inspect /srv/x", Some("/srv/x"));
        check(&NODE, "--title a hunter2 /srv/x.js", None);
        check(&NODE, "--title=a hunter2 /srv/x.js", None);
        check(&NODE, "--title a x.js", Some("x.js"));
        check(&PYTHON, "-W hunter2 hunter2", None);
        check(&PYTHON, "-um shop.web hunter2", Some("shop.web"));
        check(&PYTHON, "-W a -m hunter2", None);
        check(&PYTHON, "-c import x", None);
    }
}
