//! The `jetstream` block and `store_dir`: whether streams are kept, where, and how.

use std::path::PathBuf;

use crate::config::fields::Notes;
use crate::config::language::{Entry, Map, Value};
use crate::config::{Config, sync};
use crate::store::Sync;

use super::set;

const KEYS: [&str; 12] = [
    "enabled",
    "store_dir",
    "domain",
    "strict",
    "sync",
    "sync_interval",
    "max_mem",
    "max_memory_store",
    "max_file",
    "max_file_store",
    "limits",
    "unique_tag",
];
/// What tunes another implementation.
const TUNING: [&str; 11] = [
    "extension_hint",
    "unique_tag",
    "max_outstanding_catchup",
    "max_buffered_size",
    "max_buffered_msgs",
    "request_queue_limit",
    "info_queue_limit",
    "meta_compact",
    "meta_compact_size",
    "meta_compact_sync",
    "max_concurrent_io",
];
/// Limits that are not kept here: consumers and streams say their own.
const LIMITS: [&str; 5] = [
    "max_ack_pending",
    "max_ha_assets",
    "max_request_batch",
    "duplicate_window",
    "batch",
];

/// What a file says of streams.
#[derive(Default)]
pub(super) struct Streams {
    pub enabled: Option<bool>,
    pub dir: Option<PathBuf>,
}

impl Streams {
    /// Takes the directory; said twice, it is not clear which one is meant.
    pub fn set_dir(&mut self, entry: &Entry, notes: &mut Notes) {
        let Some(text) = entry.text(notes) else { return };
        if text.is_empty() {
            return notes.error(entry, format!("\"{}\" is empty", entry.key));
        }
        if self.dir.replace(PathBuf::from(text)).is_some() {
            notes.error(entry, "Duplicate 'store_dir' configuration");
        }
    }

    pub fn read(&mut self, entry: &Entry, config: &mut Config, notes: &mut Notes) {
        match &entry.node.value {
            Value::Flag(flag) => self.enabled = Some(*flag),
            Value::Text(text) if is(text, ["enabled", "enable"]) => self.enabled = Some(true),
            Value::Text(text) if is(text, ["disabled", "disable"]) => self.enabled = Some(false),
            Value::Map(map) => self.block(map, config, notes),
            _ => notes.error(entry, "\"jetstream\" is true, false, enabled, disabled or a map"),
        }
    }

    fn block(&mut self, map: &Map, config: &mut Config, notes: &mut Notes) {
        let mut enabled = true;
        for entry in map.entries() {
            let name = entry.name();
            match name.as_str() {
                "enable" | "enabled" => set(&mut enabled, entry.flag(notes)),
                "store" | "store_dir" | "storedir" => self.set_dir(entry, notes),
                "domain" => config.domain = entry.text(notes).filter(|text| !text.is_empty()),
                "strict" => set(&mut config.strict, entry.flag(notes)),
                "sync" | "sync_interval" => set(&mut config.sync, sync_of(entry, notes)),
                "max_memory_store" | "max_mem_store" | "max_mem" => {
                    set(&mut config.memory_max, limit(entry, notes));
                }
                "max_file_store" | "max_file" => set(&mut config.storage_max, limit(entry, notes)),
                "limits" => limits(entry, notes),
                "key"
                | "ek"
                | "encryption_key"
                | "prev_key"
                | "prev_ek"
                | "prev_encryption_key"
                | "cipher"
                | "tpm" => {
                    let text = format!(
                        "\"{}\": encryption at rest is not supported by this server",
                        entry.key
                    );
                    notes.error(entry, text);
                }
                name if TUNING.contains(&name) => {
                    notes.warn(entry, format!("\"{}\" has no effect on this server", entry.key));
                }
                _ => notes.unknown(entry, &KEYS),
            }
        }
        self.enabled = Some(enabled);
    }
}

fn is(text: &str, words: [&str; 2]) -> bool {
    words.iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn sync_of(entry: &Entry, notes: &mut Notes) -> Option<Sync> {
    if let Value::Text(text) = &entry.node.value {
        return match sync(text) {
            Ok(sync) => Some(sync),
            Err(error) => {
                notes.error(entry, format!("\"{}\": {error}, or always", entry.key));
                None
            }
        };
    }
    let every = entry.duration(notes)?;
    Some(if every.is_zero() {
        Sync::Always
    } else {
        Sync::Interval(every)
    })
}

/// Bytes; -1, or nothing said, is no limit.
fn limit(entry: &Entry, notes: &mut Notes) -> Option<Option<u64>> {
    let limit = match &entry.node.value {
        Value::Integer(number) => Some(u64::try_from(*number).ok()),
        Value::Text(text) => crate::config::size(text).ok().map(|size| Some(size as u64)),
        _ => None,
    };
    if limit.is_none() {
        notes.error(
            entry,
            format!(
                "\"{}\" is a number of bytes such as 1GB, or -1 for no limit",
                entry.key
            ),
        );
    }
    limit
}

/// Looked at, so that mistakes are told of; nothing is limited by them.
fn limits(block: &Entry, notes: &mut Notes) {
    let Some(map) = block.map(notes) else { return };
    for entry in map.entries() {
        match entry.name().as_str() {
            "duplicate_window" => {
                entry.duration(notes);
            }
            "batch" => {
                entry.map(notes);
            }
            name if LIMITS.contains(&name) => {
                entry.integer(notes);
            }
            _ => {
                notes.unknown(entry, &LIMITS);
                continue;
            }
        }
        notes.warn(entry, format!("\"{}\" has no effect on this server", entry.key));
    }
}
