//! `/storez`: the store in figures. Ours alone: nats-server has no such page.

use std::time::SystemTime;

use serde::Serialize;

use super::View;
use super::pages::Page;
use super::params::{Params, Problem};
use super::source::Store;
use super::time::timestamp;

#[derive(Serialize)]
struct Storez<'a> {
    server_id: &'a str,
    server_name: &'a str,
    now: String,
    /// The process that has the store.
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<Store>,
}

pub(super) fn page(view: &View, _: &Params) -> Result<Page, Problem> {
    Page::json(&Storez {
        server_id: &view.context.info.server_id,
        server_name: &view.context.info.server_name,
        now: timestamp(SystemTime::now()),
        pid: std::process::id(),
        store: view.store(),
    })
}
