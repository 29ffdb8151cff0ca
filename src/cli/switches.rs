//! Flags that can be switched on and off, `--allow-direct` and `--no-allow-direct`, from one table each.
//!
//! An edit must tell "leave it" from "switch it off", which a plain boolean flag cannot.

use std::marker::PhantomData;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use serde_json::{Map, Value};

/// One switch: its flag, the field of the configuration it sets, what it does.
#[derive(Debug)]
pub struct Switch {
    /// The long flag, without dashes.
    pub flag: &'static str,
    /// The `--no-` form.
    pub off: &'static str,
    /// The boolean of the configuration.
    pub field: &'static str,
    /// Whether the flag switches the field off: `--ack` and `no_ack`.
    pub inverted: bool,
    /// The help text.
    pub help: &'static str,
}

/// A table of switches, named by a type so that clap can reach it.
pub trait Table {
    /// The rows.
    const ROWS: &'static [Switch];
}

/// The switches of a table that were given.
#[derive(Clone, Debug)]
pub struct Switches<T> {
    given: Vec<(&'static str, bool)>,
    table: PhantomData<T>,
}

impl<T: Table> Switches<T> {
    /// Sets the fields that were switched.
    pub fn apply(&self, config: &mut Map<String, Value>) {
        for (field, on) in &self.given {
            config.insert((*field).to_owned(), (*on).into());
        }
    }

    /// Whether a field was switched on.
    pub fn sets(&self, field: &str) -> bool {
        self.given.contains(&(field, true))
    }
}

impl<T: Table> FromArgMatches for Switches<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = T::ROWS.iter().filter_map(|row| {
            let on = matches.get_flag(row.flag);
            (on || matches.get_flag(row.off)).then_some((row.field, on != row.inverted))
        });
        Ok(Self {
            given: given.collect(),
            table: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<T: Table> Args for Switches<T> {
    fn augment_args(command: Command) -> Command {
        T::ROWS.iter().fold(command, |command, row| {
            let on = Arg::new(row.flag)
                .long(row.flag)
                .help(format!("{} (--{} switches it off)", row.help, row.off));
            let off = Arg::new(row.off).long(row.off).hide(true);
            command
                .arg(on.action(ArgAction::SetTrue).overrides_with(row.off))
                .arg(off.action(ArgAction::SetTrue).overrides_with(row.flag))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
