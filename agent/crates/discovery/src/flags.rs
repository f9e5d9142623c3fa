//! Interpreters' flags: what to skip on the way to the script.
//!
//! Each language states which of its flags take a value, because what follows `-r` is no script.
//! A flag that is not listed is taken to have none.

/// Flags of an interpreter. Words are whole flags; letters may be bundled (`-um mod`), and their
/// value may follow at once or as the next argument.
pub(super) struct Flags {
    /// Whole flags with a value, separated by spaces.
    value: &'static str,
    /// Whole flags whose value is what runs.
    runs: &'static str,
    /// Whole flags that are followed by code.
    code: &'static str,
    /// `None`: flags with one dash are words (`-cp`), not bundles of letters.
    letters: Option<Letters>,
}

struct Letters {
    value: &'static str,
    runs: &'static str,
    code: &'static str,
    /// Letters that take the rest of their bundle, but never the next argument.
    attached: &'static str,
}

/// What follows the flags.
pub(super) enum Target<'a> {
    /// A script, or a sub-command, and what follows it.
    Script(&'a str, &'a [String]),
    /// The value of a flag that names what runs, and what follows it.
    Named(&'a str, &'a [String]),
    /// Code, standard input, nothing.
    Nameless,
}

pub(super) const NODE: Flags = Flags {
    value: "-r --require --import --loader --experimental-loader -C --conditions --env-file \
        --env-file-if-exists --title --icu-data-dir --openssl-config --redirect-warnings \
        --trace-event-categories --trace-event-file-pattern --diagnostic-dir --report-dir \
        --report-directory --report-filename --heapsnapshot-signal --cpu-prof-dir \
        --cpu-prof-name --heap-prof-dir --input-type --unhandled-rejections \
        --dns-result-order --disable-warning --max-http-header-size --watch-path \
        --inspect-port",
    runs: "--run",
    code: "-e --eval -p --print -pe -",
    letters: None,
};

pub(super) const PYTHON: Flags = Flags {
    value: "--check-hash-based-pycs",
    runs: "",
    code: "",
    letters: Some(Letters { value: "WXQ", runs: "m", code: "c", attached: "" }),
};

pub(super) const JAVA: Flags = Flags {
    value: "-cp -classpath --class-path -p --module-path --upgrade-module-path --add-modules \
        --add-exports --add-opens --add-reads --limit-modules --patch-module \
        --enable-native-access --source --describe-module -d",
    runs: "-jar -m --module",
    code: "",
    letters: None,
};

pub(super) const RUBY: Flags = Flags {
    value: "--encoding --external-encoding --internal-encoding",
    runs: "",
    code: "",
    letters: Some(Letters { value: "ICEr", runs: "", code: "e", attached: "iWTKx0Fl" }),
};

pub(super) const PERL: Flags = Flags {
    value: "",
    runs: "",
    code: "",
    letters: Some(Letters { value: "I", runs: "", code: "eE", attached: "iMm0lFDCdxV" }),
};

pub(super) const PHP: Flags = Flags {
    value: "--define --php-ini --docroot --server --zend-extension",
    runs: "--file",
    code: "--run --process-code",
    letters: Some(Letters { value: "dcztS", runs: "f", code: "rBRE", attached: "" }),
};

pub(super) const DENO: Flags = Flags {
    value: "-c --config --import-map --cert --location -L --log-level --seed --port --host --cwd",
    runs: "",
    code: "-",
    letters: None,
};

pub(super) const BUN: Flags = Flags {
    value: "-r --preload --require --import -c --config --cwd --env-file --tsconfig-override -d \
        --define -l --loader --port --filter",
    runs: "",
    code: "-e --eval -p --print -",
    letters: None,
};

pub(super) const DOTNET: Flags = Flags {
    value: "--fx-version --roll-forward --additionalprobingpath --depsfile --runtimeconfig \
        --additional-deps",
    runs: "--project",
    code: "",
    letters: None,
};

// === impl Flags ===

impl Flags {
    /// Skips flags and their values.
    pub(super) fn target<'a>(&self, arguments: &'a [String]) -> Target<'a> {
        let mut rest = arguments;
        while let Some((argument, after)) = rest.split_first() {
            rest = after;
            if listed(self.code, argument) {
                return Target::Nameless;
            }
            if argument == "--" {
                return match rest.split_first() {
                    Some((script, rest)) => Target::Script(script, rest),
                    None => Target::Nameless,
                };
            }
            let Some(bundle) = argument.strip_prefix('-') else {
                return Target::Script(argument, rest);
            };
            let value = match &self.letters {
                Some(letters) if !bundle.starts_with('-') => letters.value(bundle),
                _ => self.word(argument),
            };
            match value {
                Value::None => {}
                Value::Skip => rest = rest.get(1..).unwrap_or_default(),
                Value::Code => return Target::Nameless,
                Value::Runs(Some(name)) => return Target::Named(name, rest),
                Value::Runs(None) => {
                    return match rest.split_first() {
                        Some((name, rest)) => Target::Named(name, rest),
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
        } else if listed(self.value, flag) && value.is_none() {
            Value::Skip
        } else {
            Value::None
        }
    }
}

/// What a flag says of what follows it.
enum Value<'a> {
    None,
    /// The next argument is its value.
    Skip,
    Code,
    /// What runs: here, or in the next argument.
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
                return if rest.is_some() { Value::None } else { Value::Skip };
            }
            if self.attached.contains(letter) {
                return Value::None;
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
        check(&NODE, "-- -x", Some(("-x", 0)));
        check(&NODE, "-r", None);
        check(&JAVA, "-jar", None);
        check(&PYTHON, "-", None);
        check(&PHP, "--", None);
    }
}
