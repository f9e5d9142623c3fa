//! What a shell runs: the script, or the first program of the code behind `-c`.
//!
//! The code is split into words as a shell does, because a quoted value may contain anything that
//! looks like a command. Unsupported syntax (here-documents, functions, `case`, programs whose name
//! is expanded) gives no name.

use super::program_name::ProgramName;

/// Long options without a value.
const BARE: &str = "login posix norc noprofile noediting restricted verbose debugger";
/// Words before a command.
const KEYWORDS: &str = "! { do then else elif if while until";
/// Programs that run the command that follows.
const RUNNERS: &str = "exec nohup env command time setsid";
/// Shell built-ins, which are not programs. Their arguments are skipped.
const BUILTINS: &str = "cd set export source . ulimit umask trap eval [ test echo printf sleep \
    true false : shopt wait read local for done fi unset declare typeset readonly alias unalias \
    exit return break continue let pushd popd dirs hash type kill jobs bg fg getopts mapfile \
    readarray shift enable builtin disown history times bind }";
/// The same, for built-ins whose arguments are not separated like those of commands.
const UNREADABLE: &str = "case esac function select coproc [[ ]]";

/// What a shell with these arguments runs.
pub(super) fn program(arguments: &[String]) -> Option<ProgramName> {
    let mut is_command = false;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let name =
            |text: &str| if is_command { first_program(text) } else { ProgramName::of(text) };
        match argument.strip_prefix(['-', '+']) {
            None => return name(argument),
            Some("-") => return name(rest.next()?),
            Some("" | "s") => return None,
            Some("-rcfile" | "-init-file") => drop(rest.next()),
            Some(long) if long.starts_with('-') => {
                if !listed(BARE, long.trim_start_matches('-')) {
                    return None;
                }
            }
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

/// The script in a title that is a joined command line: behind flags that take no value.
pub(super) fn script_in_title(words: &[String]) -> Option<ProgramName> {
    let is_plain = |word: &&String| {
        word.strip_prefix('-').is_some_and(|letters| {
            !letters.is_empty() && letters.chars().all(|letter| "aefhlmnruvx".contains(letter))
        })
    };
    words.iter().find(|word| !is_plain(word)).and_then(|word| ProgramName::of(word))
}

/// The first program in a shell command, past assignments, keywords and built-ins.
fn first_program(code: &str) -> Option<ProgramName> {
    let mut tokens = Tokens { rest: code };
    let mut is_command = true;
    let mut after_runner = false;
    loop {
        let word = match tokens.next()? {
            Token::Separator => {
                (is_command, after_runner) = (true, false);
                continue;
            }
            Token::Open if is_command => continue,
            Token::Open => return None,
            Token::Word(word) if is_command => word,
            Token::Word(_) => continue,
        };
        let text = word.text.as_str();
        if word.is_assignment || (!word.is_quoted && listed(KEYWORDS, text)) {
            continue;
        }
        if listed(RUNNERS, text) {
            after_runner = true;
        } else if after_runner && text.starts_with('-') || listed(UNREADABLE, text) {
            // Its flags may take values.
            return None;
        } else if listed(BUILTINS, text) {
            is_command = false;
        } else {
            return Some(text).filter(|_| !word.is_expanded).and_then(ProgramName::of);
        }
    }
}

fn listed(list: &str, word: &str) -> bool {
    list.split_ascii_whitespace().any(|one| one == word)
}

/// The code that is left.
struct Tokens<'a> {
    rest: &'a str,
}

enum Token {
    /// The end of a simple command.
    Separator,
    /// A subshell begins.
    Open,
    Word(Word),
}

#[derive(Default)]
struct Word {
    /// Without quotes; of expansions nothing.
    text: String,
    is_quoted: bool,
    is_expanded: bool,
    is_assignment: bool,
}

// === impl Tokens ===

impl Tokens<'_> {
    /// The next token; `None` at the end, or at unsupported syntax.
    fn next(&mut self) -> Option<Token> {
        loop {
            let first = self.peek()?;
            match first {
                ' ' | '\t' | '\r' => drop(self.take()),
                '#' => self.rest = self.rest.get(self.rest.find('\n')?..)?,
                '&' if self.rest.starts_with("&>") => {
                    self.take();
                    self.redirection()?;
                }
                '\n' | ';' | '&' | '|' | ')' => {
                    self.take();
                    return Some(Token::Separator);
                }
                '(' => {
                    self.take();
                    // Arithmetic.
                    return Some(Token::Open).filter(|_| !self.rest.starts_with('('));
                }
                '<' | '>' => self.redirection()?,
                _ => {
                    let word = self.word()?;
                    // `name()` is a function, `name=(…)` a list.
                    if self.rest.starts_with('(') {
                        return None;
                    }
                    let is_descriptor = !word.is_quoted
                        && !word.text.is_empty()
                        && word.text.chars().all(|c| c.is_ascii_digit());
                    if !(is_descriptor && self.rest.starts_with(['<', '>'])) {
                        return Some(Token::Word(word));
                    }
                }
            }
        }
    }

    /// `>file`, `2>&1`; here-documents and `<(…)` are not understood.
    fn redirection(&mut self) -> Option<()> {
        let sign = self.take()?;
        match (sign, self.peek()?) {
            ('<', '<') | (_, '(') => return None,
            (_, '>' | '&' | '|') => drop(self.take()),
            _ => {}
        }
        self.rest = self.rest.trim_start_matches([' ', '\t']);
        let target = self.word()?;
        (!self.rest.starts_with('(') && (target.is_expanded || !target.text.is_empty()))
            .then_some(())
    }

    fn word(&mut self) -> Option<Word> {
        let mut word = Word::default();
        while let Some(next) = self.peek() {
            match next {
                ' ' | '\t' | '\r' | '\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>' => break,
                '\'' => {
                    self.take();
                    word.is_quoted = true;
                    let end = self.rest.find('\'')?;
                    word.text.push_str(self.rest.get(..end)?);
                    self.rest = self.rest.get(end + 1..)?;
                }
                '"' => {
                    self.take();
                    word.is_quoted = true;
                    self.quoted(&mut word)?;
                }
                '\\' => {
                    self.take();
                    word.is_quoted = true;
                    word.text.push(self.take()?);
                }
                '$' | '`' => self.expansion(&mut word)?,
                '=' => {
                    self.take();
                    word.is_assignment |= is_variable(&word);
                    word.text.push('=');
                }
                other => {
                    self.take();
                    word.text.push(other);
                }
            }
        }
        Some(word)
    }

    /// The rest of `"…"`.
    fn quoted(&mut self, word: &mut Word) -> Option<()> {
        loop {
            match self.peek()? {
                '"' => {
                    self.take();
                    return Some(());
                }
                '\\' => {
                    self.take();
                    word.text.push(self.take()?);
                }
                '$' | '`' => self.expansion(word)?,
                other => {
                    self.take();
                    word.text.push(other);
                }
            }
        }
    }

    /// `$x`, `${x:-y}`, `$(…)`, `` `…` ``.
    fn expansion(&mut self, word: &mut Word) -> Option<()> {
        word.is_expanded = true;
        if self.take()? == '`' {
            let end = self.rest.find('`')?;
            // An escaped one would go on.
            if self.rest.get(..end)?.ends_with('\\') {
                return None;
            }
            self.rest = self.rest.get(end + 1..)?;
            return Some(());
        }
        match self.peek() {
            Some('(') => self.until(')'),
            Some('{') => self.until('}'),
            Some('\'') => None,
            _ => Some(()),
        }
    }

    /// Skips a bracketed part, including brackets and quotes within it.
    fn until(&mut self, close: char) -> Option<()> {
        self.take();
        loop {
            match self.peek()? {
                found if found == close => {
                    self.take();
                    return Some(());
                }
                // Whether it quotes within `"${…}"` depends on the shell.
                '\'' if close == '}' => return None,
                '\'' => {
                    self.take();
                    self.rest = self.rest.get(self.rest.find('\'')? + 1..)?;
                }
                '"' => {
                    self.take();
                    self.quoted(&mut Word::default())?;
                }
                '\\' => {
                    self.take();
                    self.take();
                }
                '$' | '`' => self.expansion(&mut Word::default())?,
                '(' => self.until(')')?,
                // A comment or a here-document may contain a bracket.
                '#' if close == ')' => return None,
                '<' if self.rest.starts_with("<<") => return None,
                _ => drop(self.take()),
            }
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let mut rest = self.rest.chars();
        let taken = rest.next();
        self.rest = rest.as_str();
        taken
    }
}

/// Whether a word that is followed by `=` is the name of a variable.
fn is_variable(word: &Word) -> bool {
    let name = word.text.strip_suffix('+').unwrap_or(&word.text);
    let subscript = name.split_once('[').map_or(name, |(name, _)| name);
    !word.is_quoted
        && !word.is_expanded
        && subscript.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && subscript.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(code: &str, expected: Option<&str>) {
        let found = first_program(code).map(ProgramName::into_string);
        assert_eq!(found.as_deref(), expected, "{code}");
    }

    #[test]
    fn the_first_program_is_found_behind_what_prepares_it() {
        check("exec /usr/sbin/nginx -g 'daemon off;'", Some("nginx"));
        check("PGPASSWORD=hunter2 psql -h db", Some("psql"));
        check("PGPASSWORD='a b;hunter2' psql -h db", Some("psql"));
        check("PGPASSWORD=\"a \\\" b&hunter2\" psql -h db", Some("psql"));
        check("export A='x && hunter2' && ./serve", Some("serve"));
        check("A=$(cat /run/hunter2) B=`hunter2` C=${D:=hunter2} serve", Some("serve"));
        check("A=\"$(echo ')hunter2')\" serve", Some("serve"));
        check("echo hunter2 | docker login --password-stdin", Some("docker"));
        check(": ${X:=hunter2}; serve", Some("serve"));
        check("# hunter2\n serve # hunter2", Some("serve"));
        check("2>&1 >/tmp/hunter2 serve", Some("serve"));
        check("&>/tmp/hunter2 serve", Some("serve"));
        check("cd /srv 2>&1 && serve", Some("serve"));
        check("[ \"$X\" = hunter2 ] || serve", Some("serve"));
        check("for x in hunter2 b; do curl $x; done", Some("curl"));
        check("{ serve hunter2; }", Some("serve"));
        check("(cd /x; serve)", Some("serve"));
        check("'/opt/my shop/serve' x", Some("serve"));
        check("curl http://user:hunter2@host", Some("curl"));
        check("bash -c 'A=b c'", Some("bash"));
    }

    #[test]
    fn code_that_is_not_understood_names_nothing() {
        for code in [
            "",
            "cd /",
            "A=(hunter2 b)",
            "f() { hunter2; }",
            "function hunter2 { x; }",
            "case hunter2 in hunter2) x;; esac",
            "[[ a = b && hunter2 = c ]]",
            "exec -a hunter2 serve",
            "env -u hunter2 serve",
            "export X=<<E\nhunter2\nE",
            "$HUNTER2 x",
            "\"$A\"hunter2",
            "`hunter2`",
            "echo 'hunter2",
            "echo \"hunter2",
            "A=$(hunter2",
            "X=$(a # )\nhunter2",
            "read x <(hunter2)",
            "user:hunter2@host",
            "for ((i=0;i<2;i++)); do x; done",
            "A=$'a\\'hunter2'; hunter2'",
            "A=\"${x:-it's}\" hunter2 'x'",
        ] {
            check(code, None);
        }
        check("cat <<E\nhunter2\nE", Some("cat"));
    }

    proptest! {
        #[test]
        fn any_code_is_read_without_panic(code in "([a-z =$(){}<>&|;#'\"`\\\\\n]|\\PC){0,60}") {
            let _ = first_program(&code);
        }
    }
}
