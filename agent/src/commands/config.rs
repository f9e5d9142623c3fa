//! `portolan config check` and `portolan config show`.

use std::fmt::Write;

use clap::{Args, Subcommand};
use cli::{Output, print};
use serde_json::json;

use super::overrides::Overrides;
use crate::config::settings::SETTINGS;
use crate::config::{ConfigError, Loaded, segments};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Validate the configuration; show effective values and their origins.
    #[command(
        after_long_help = "The web configuration file, if one is set, is checked too. Exit code 0 if all is valid, 2 if not.\n\nExamples:\n  portolan config check --config portolan.toml\n  PORTOLAN_LOG_LEVEL=loud portolan config check --output json"
    )]
    Check(CheckArgs),
    /// Print the effective configuration as a TOML file with comments.
    #[command(after_long_help = "Example:\n  portolan config show > portolan.toml")]
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    overrides: Overrides,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    overrides: Overrides,
}

pub(super) fn run(command: &ConfigCommand) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Check(CheckArgs { output, overrides }) => {
            let loaded = overrides.load().and_then(with_web_file);
            match output {
                Output::Text => print(&checked_text(&loaded?)),
                Output::Json => {
                    print(&checked_json(&loaded))?;
                    loaded.map(drop).map_err(anyhow::Error::from)
                }
            }
        }
        ConfigCommand::Show(ShowArgs { overrides }) => print(&file_text(&overrides.load()?)),
    }
}

/// The same, if the web configuration file and those that it names can be used.
fn with_web_file(loaded: Loaded) -> Result<Loaded, ConfigError> {
    if let Some(path) = &loaded.config.web.config_file {
        server::web::check_file(path).map_err(ConfigError::Web)?;
    }
    Ok(loaded)
}

fn checked_text(loaded: &Loaded) -> String {
    let mut text = "ok\n".to_owned();
    for setting in SETTINGS {
        // Writing into a String cannot fail.
        let _ = match (setting.show)(&loaded.config) {
            Ok(value) => {
                writeln!(text, "{} = {value}  ({})", setting.key, loaded.origin(setting.key))
            }
            Err(unset) => writeln!(text, "{} = (unset: {unset})", setting.key),
        };
    }
    text.push_str(&segments::text(&loaded.config.segments));
    for warning in &loaded.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

/// `{"ok": true, "config": {…}, "origins": {key: place}, "warnings": […]}`, or
/// `{"ok": false, "error": "…"}`.
fn checked_json(loaded: &Result<Loaded, ConfigError>) -> String {
    let answer = match loaded {
        Ok(loaded) => json!({
            "ok": true,
            "config": loaded.config,
            "origins": SETTINGS
                .iter()
                .map(|setting| (setting.key, loaded.origin(setting.key)))
                .collect::<std::collections::BTreeMap<_, _>>(),
            "warnings": loaded.warnings,
        }),
        Err(error) => json!({ "ok": false, "error": error.to_string() }),
    };
    format!("{answer:#}\n")
}

/// The effective configuration as a file with the same effect.
fn file_text(loaded: &Loaded) -> String {
    let mut text = "# Portolan's configuration; every key is optional.\n".to_owned();
    let mut section = "";
    // TOML requires the keys without a section first.
    let (sections, top): (Vec<_>, Vec<_>) = SETTINGS.iter().partition(|s| s.key.contains('.'));
    for setting in top.into_iter().chain(sections) {
        let (in_section, name) = setting.key.rsplit_once('.').unwrap_or(("", setting.key));
        if in_section != section {
            section = in_section;
            let _ = write!(text, "\n[{section}]");
        }
        let _ = writeln!(text, "\n# {}.", setting.help);
        let _ = match (setting.show)(&loaded.config) {
            Ok(value) => writeln!(text, "{name} = {value}"),
            Err(unset) => writeln!(text, "# Unset: {unset}.\n# {name} ="),
        };
    }
    text.push_str(&segments::text(&loaded.config.segments));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Given, settings};

    #[test]
    fn what_is_shown_is_a_file_with_the_same_effect() {
        let edges = settings::find("limits.edges").expect("known");
        let pin = settings::find("pin").expect("known");
        let flags = [(edges, Given::Text("4096".into())), (pin, Given::Text("true".into()))];
        let shown = config::load(None, [], &flags).expect("valid");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("shown.toml");
        std::fs::write(&path, file_text(&shown)).expect("written");
        let read = config::load(Some(&path), [], &[]).expect("valid");
        assert_eq!(read.config, shown.config);

        let text = "[segments]\nallow = [\"a -> b\"]\n[segments.a]\nnetworks = [\"10.0.0.0/8\"]\n\
             [segments.b]\nservices = [\"x\", \"y\"]\n";
        std::fs::write(&path, text).expect("written");
        let shown = config::load(Some(&path), [], &[]).expect("valid");
        std::fs::write(&path, file_text(&shown)).expect("written");
        let read = config::load(Some(&path), [], &[]).expect("valid");
        assert_eq!(read.config.segments, shown.config.segments);
    }

    #[test]
    fn a_check_prints_each_value_and_its_origin() {
        let level = ("PORTOLAN_LOG_LEVEL".to_owned(), "debug".to_owned());
        let loaded = config::load(None, [level], &[]).expect("valid");
        let text = checked_text(&loaded);
        assert!(text.starts_with("ok\nweb.listen_address = \"127.0.0.1:10062\"  (default)\n"));
        assert!(
            text.contains("log.level = \"debug\"  (environment variable PORTOLAN_LOG_LEVEL)\n"),
            "{text}"
        );
        assert!(text.contains("otlp.endpoint = (unset: metrics are not pushed)\n"), "{text}");
        assert!(!text.contains("automatic"), "{text}");
    }

    #[test]
    fn a_check_reads_the_web_configuration_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("web.yml");
        let check = |text: &str| {
            std::fs::write(&path, text).expect("written");
            let file = ("PORTOLAN_WEB_CONFIG_FILE".to_owned(), path.display().to_string());
            config::load(None, [file], &[]).and_then(with_web_file)
        };
        assert!(check("http_server_config: {http2: false}\n").is_ok());
        let error =
            check("rate_limit: {burst: 1, interval: 1}\ncolour: red\n").expect_err("refused");
        assert!(error.to_string().contains("web.yml: line 2: unknown key `colour`"), "{error}");
    }

    #[test]
    fn a_check_as_json_has_the_same_content() {
        let answer = |loaded| -> serde_json::Value {
            serde_json::from_str(&checked_json(&loaded)).expect("JSON")
        };
        let good = answer(config::load(None, [], &[]));
        assert_eq!(good["ok"], true);
        assert_eq!(good["config"]["web"]["listen_address"], "127.0.0.1:10062");
        assert_eq!(good["config"]["collection_interval"], "1s");
        assert_eq!(good["origins"]["pin"], "default");
        let level = ("PORTOLAN_LOG_LEVEL".to_owned(), "loud".to_owned());
        let bad = answer(config::load(None, [level], &[]));
        assert_eq!(bad["ok"], false);
        assert_eq!(
            bad["error"],
            "environment variable PORTOLAN_LOG_LEVEL: `log.level` is \"loud\"; choose one of error, warn, info, debug, trace"
        );
    }
}
