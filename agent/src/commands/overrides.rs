//! The settings as flags, made from the table of settings.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

use crate::config::settings::{ENV_CONFIG, Flag, RENAMED, SETTINGS, Setting};
use crate::config::{self, Config, ConfigError, Given, Loaded};

/// Settings on the command line.
#[derive(Clone, Debug, Default)]
pub(super) struct Overrides {
    /// The file.
    pub file: Option<PathBuf>,
    /// Settings given as flags.
    pub values: Vec<(&'static Setting, Given)>,
}

// === impl Overrides ===

impl Overrides {
    /// The effective configuration.
    pub(super) fn load(&self) -> Result<Loaded, ConfigError> {
        // Names and values that are not text cannot be ours.
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        config::load(self.file.as_deref(), environment, &self.values)
    }
}

impl Args for Overrides {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .env(ENV_CONFIG)
            .hide_env_values(true)
            .value_parser(value_parser!(PathBuf))
            .help("Configuration file, TOML or YAML by its extension");
        let command = command.arg(file).args(SETTINGS.iter().map(flag));
        // Renamed flags are known, for a better error than "unexpected argument".
        command.args(RENAMED.iter().map(|old| {
            Arg::new(old.key).long(old.flag).num_args(0..=1).hide(true).value_name("OLD")
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Overrides {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let is_given = |key: &str| matches.value_source(key) == Some(ValueSource::CommandLine);
        if let Some(old) = RENAMED.iter().find(|old| is_given(old.key)) {
            let new = old.now(|setting| format!("--{}", setting.flag.name()));
            let said = format!("--{} has been renamed: use {new}", old.flag);
            return Err(clap::Error::raw(ErrorKind::UnknownArgument, said));
        }
        let given = |setting: &Setting| match setting.flag {
            Flag::Value(..) => matches.get_one::<String>(setting.key).cloned(),
            Flag::On(_) => matches.get_flag(setting.key).then(|| "true".to_owned()),
            Flag::Off(..) => matches.get_flag(setting.key).then(|| "false".to_owned()),
        };
        let values = SETTINGS.iter().filter_map(|s| given(s).map(|text| (s, Given::Text(text))));
        Ok(Self { file: matches.get_one("config").cloned(), values: values.collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn flag(setting: &'static Setting) -> Arg {
    let default = (setting.show)(&Config::default());
    let default = match (setting.flag, default) {
        // As it would be written after the flag.
        (Flag::Value(..), Ok(value)) if value != "[]" => {
            format!(" [default: {}]", value.replace(['[', ']', '"', ' '], ""))
        }
        (Flag::Value(..), Err(unset)) => format!(" [default: {unset}]"),
        _ => String::new(),
    };
    let help = match setting.flag {
        Flag::Off(_, help) => help,
        Flag::Value(..) | Flag::On(_) => setting.help,
    };
    // The variable is shown but not read by clap: the configuration reads it, so that the origin of
    // a value is known.
    let variable = match setting.flag {
        // The variable has the sense of the key, the opposite of the flag's.
        Flag::Off(..) => format!("{}=false", setting.env()),
        Flag::Value(..) | Flag::On(_) => setting.env(),
    };
    let help = format!("{help}{default} [env: {variable}]");
    let arg = Arg::new(setting.key).long(setting.flag.name()).help(help);
    match setting.flag {
        Flag::Value(_, value) => arg.value_name(value),
        Flag::On(_) | Flag::Off(..) => arg.action(ArgAction::SetTrue),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_values_of_their_settings() {
        let command = Overrides::augment_args(Command::new("test"));
        let matches = command
            .try_get_matches_from([
                "test",
                "--web.listen-address",
                "[::1]:1",
                "--no-requests",
                "--pin",
                "--config",
                "a.toml",
            ])
            .expect("parses");
        let overrides = Overrides::from_arg_matches(&matches).expect("reads");
        assert_eq!(overrides.file, Some(PathBuf::from("a.toml")));
        let values: Vec<_> = overrides.values.iter().map(|(s, v)| (s.key, v.clone())).collect();
        let text = |value: &str| Given::Text(value.to_owned());
        assert_eq!(
            values,
            [
                ("web.listen_address", text("[::1]:1")),
                ("pin", text("true")),
                ("requests", text("false")),
            ]
        );
    }

    #[test]
    fn a_flag_that_was_renamed_is_refused_with_the_new_one() {
        let command = Overrides::augment_args(Command::new("test"));
        for (arguments, expected) in [
            (
                &["test", "--sweep-interval", "1s"][..],
                "--sweep-interval has been renamed: use --collection-interval",
            ),
            (
                &["test", "--masked=drops"],
                "--masked has been renamed: use --disable-hooks or --disable-fields",
            ),
        ] {
            let matches = command.clone().try_get_matches_from(arguments).expect("parses");
            let error = Overrides::from_arg_matches(&matches).expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn help_of_a_flag_that_disables_something_says_what_is_lost() {
        let mut command = Overrides::augment_args(Command::new("test"));
        let help = command.render_long_help().to_string();
        assert!(help.contains("Disable request latency"), "{help}");
        for setting in SETTINGS {
            if let Flag::Off(name, said) = setting.flag {
                assert!(said.starts_with("Disable "), "--{name}: {said}");
                let variable = format!("{}=false", setting.env());
                assert!(help.contains(&format!("{said} [env: {variable}]")), "--{name}: {help}");
                let (variable, value) = variable.split_once('=').expect("a value");
                let set = config::load(None, [(variable.to_owned(), value.to_owned())], &[]);
                let flag = config::load(None, [], &[(setting, Given::Text("false".into()))]);
                assert_eq!(set.expect("valid").config, flag.expect("valid").config);
            }
        }
    }
}
