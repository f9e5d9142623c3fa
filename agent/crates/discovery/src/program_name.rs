//! The only constructor of names from what a process writes about itself: its command name, its
//! title, its arguments.
//!
//! All three may contain anything, passwords too, and names become labels. So a name is a program,
//! a script, a module, a class or an application: one identifier, without its folder. Anything that
//! is not an identifier gives no name, never a part of itself.

use super::flags::is_source;
use model::service::is_invisible;

/// Characters in a name at most.
const MAX_NAME: usize = 64;

/// A name that is an identifier: letters and digits of any script, and `._@+-` between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProgramName {
    name: String,
    /// The path before it, up to the last `/`.
    folder: String,
}

// === impl ProgramName ===

impl ProgramName {
    /// The name at the end of a path; `None` if that is not an identifier. Flags, assignments, URLs
    /// and quoted text are not paths, although they may end like one. The path of a descriptor says
    /// nothing of the file behind it.
    pub(super) fn of(path: &str) -> Option<Self> {
        let is_path =
            !path.starts_with('-') && !path.contains(['=', ':', '\'', '"']) && !is_descriptor(path);
        let name = identifier(basename(path)).filter(|_| is_path)?;
        let path = path.trim_end_matches('/');
        let folder = path.rfind('/').and_then(|end| path.get(..=end)).unwrap_or_default();
        Some(Self { name, folder: folder.to_owned() })
    }

    /// A word of a title that is an identifier.
    pub(super) fn word(word: &str) -> Option<Self> {
        Self::of(word).filter(|_| !word.contains('/'))
    }

    /// The name at the end of a URL's path: credentials stand in the authority, tokens in the
    /// query.
    pub(super) fn of_url(url: &str) -> Option<Self> {
        let (_, rest) = url.split_once("://")?;
        let (_, path) = rest.split(['?', '#']).next()?.split_once('/')?;
        Self::of(path).map(Self::without_folder)
    }

    /// A task that a tool runs: `npm start`. Tasks may have parts: `npm start:dev`.
    pub(super) fn task(tool: &str, task: &str) -> Option<Self> {
        let tool = identifier(tool)?;
        let is_task = task.split(':').all(|part| identifier(part).is_some());
        let name = format!("{tool} {task}");
        let fits = is_task && name.chars().count() <= MAX_NAME;
        fits.then(|| Self { name, folder: String::new() })
    }

    /// Whether it is the name of a source file.
    pub(super) fn is_source(&self) -> bool {
        is_source(&self.name)
    }

    /// The path before the name: where a script is. Empty, or ends with `/`.
    pub(super) fn folder(&self) -> &str {
        &self.folder
    }

    /// The name alone, where its path may be part of a value.
    #[must_use]
    pub(super) fn without_folder(self) -> Self {
        Self { folder: String::new(), ..self }
    }

    /// The text.
    pub(super) fn as_str(&self) -> &str {
        &self.name
    }

    /// The text.
    pub(super) fn into_string(self) -> String {
        self.name
    }
}

/// The last part of a path.
pub(super) fn basename(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether a path leads to an open file of a process, as that of `bash <(curl …)` (man 5 proc).
fn is_descriptor(path: &str) -> bool {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    match (path.starts_with('/'), parts.next(), parts.next()) {
        (true, Some("dev"), Some("fd" | "stdin")) => true,
        // Also `/proc/PID/task/TID/fd/N`.
        (true, Some("proc"), Some(_)) => parts.any(|part| part == "fd"),
        _ => false,
    }
}

fn identifier(text: &str) -> Option<String> {
    let is_letter = |c: char| c.is_alphanumeric() && !is_invisible(c);
    let fits = text.starts_with(|c: char| is_letter(c) || matches!(c, '_' | '.' | '@'))
        && text.chars().any(is_letter)
        && text.chars().all(|c| is_letter(c) || matches!(c, '.' | '_' | '@' | '+' | '-'));
    fits.then(|| {
        let long = text.chars().count() > MAX_NAME;
        // A long class name keeps the class and loses the package.
        let class = text.rsplit('.').next().filter(|last| long && last.len() > 3);
        class.unwrap_or(text).chars().take(MAX_NAME).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Option<&str>) {
        let found = ProgramName::of(path).map(ProgramName::into_string);
        assert_eq!(found.as_deref(), expected, "{path:?}");
    }

    #[test]
    fn a_name_is_one_identifier_without_its_folder() {
        for name in [
            "nginx",
            "server.js",
            "com.shop.Main",
            "g++",
            "postgresql@15-main",
            "grüß",
            "店.py",
            "_x",
            ".app",
        ] {
            check(name, Some(name));
        }
        check("/srv/shop/orders.js", Some("orders.js"));
        check("/srv/shop/", Some("shop"));
        check("/srv/my shop/x.js", Some("x.js"));
    }

    #[test]
    fn no_part_of_a_non_identifier_is_a_name() {
        for text in [
            "",
            "/",
            ".",
            "..",
            "-",
            "-phunter2",
            "--",
            "a b",
            "A=hunter2",
            "user:hunter2",
            "a'b",
            "a\"b",
            "a,b",
            "$SECRET",
            "a;b",
            "`id`",
            "a\tb",
            "a\n",
            "a\u{1b}[31m",
            "a\u{202e}b",
            "a\u{200b}b",
            "a\u{feff}",
            "\u{3164}",
            "a\u{fffd}",
            "https://hunter2@example.org",
            "https://example.org/hunter2",
            "--x=/run/hunter2",
            "A=/run/hunter2",
            "user:a/hunter2",
            "'/run/hunter2",
            "-/hunter2",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn a_descriptor_is_not_a_name_and_a_folder_called_fd_is_a_folder() {
        for path in [
            "/dev/fd/3",
            "/dev/fd/63/",
            "//dev//fd/3",
            "/dev/stdin",
            "/proc/self/fd/3",
            "/proc/thread-self/fd/3",
            "/proc/4711/fd/255",
            "/proc/4711/task/4712/fd/3",
        ] {
            check(path, None);
        }
        check("/srv/dev/fd/serve", Some("serve"));
        check("dev/fd/serve", Some("serve"));
        check("/dev/shm/job.sh", Some("job.sh"));
        check("fd", Some("fd"));
    }

    #[test]
    fn of_a_url_only_the_path_is_a_name() {
        let check = |url: &str, expected: Option<&str>| {
            let found = ProgramName::of_url(url).map(ProgramName::into_string);
            assert_eq!(found.as_deref(), expected, "{url:?}");
        };
        check(
            "https://user:hunter2@example.org/a/serve.ts?token=/hunter2#/hunter2",
            Some("serve.ts"),
        );
        check("file:///srv/x.js", Some("x.js"));
        check("https://hunter2@example.org", None);
        check("https://hunter2@example.org/", None);
        check("https://example.org?/hunter2", None);
        check("/srv/x.js", None);
    }

    #[test]
    fn names_are_bounded_and_keep_the_class() {
        check(&"x".repeat(300), Some(&"x".repeat(MAX_NAME)));
        check(
            &format!("com.{}.ShopServer", "long.".repeat(20).trim_end_matches('.')),
            Some("ShopServer"),
        );
        assert_eq!(ProgramName::task("npm", &"x".repeat(MAX_NAME)), None);
    }

    #[test]
    fn a_task_is_an_identifier_in_parts() {
        let check = |task: &str, expected: Option<&str>| {
            let found = ProgramName::task("npm", task).map(ProgramName::into_string);
            assert_eq!(found.as_deref(), expected, "{task:?}");
        };
        check("start", Some("npm start"));
        check("start:dev", Some("npm start:dev"));
        check("start:", None);
        check("a b", None);
        check("A=hunter2", None);
    }
}
