//! Accounts among the effective settings, as comments: what they share is there, secrets are not.

use std::fmt::Display;

use crate::account::{Auth, Export, Import, Kind, Mapping, Response, Spec, StreamLimits, THRESHOLD};

use super::Config;
use super::settings::{names, quoted, time};

/// Lines for each account, and for each thing it shares.
pub(super) fn accounts(config: &Config) -> Vec<String> {
    config
        .accounts
        .iter()
        .flat_map(|spec| account(spec, &config.auth))
        .collect()
}

fn account(spec: &Spec, auth: &Auth) -> Vec<String> {
    let mut says = Vec::new();
    if let Auth::Users(users) = auth {
        let names = names(users, &spec.name);
        if !names.is_empty() {
            says.push(format!("users: [{names}]"));
        }
    }
    let limits = [
        ("max_connections", spec.limits.connections),
        ("max_subscriptions", spec.limits.subscriptions),
        ("max_payload", spec.limits.payload),
    ];
    let limits = said(limits.into_iter().filter_map(|(key, limit)| Some((key, limit?))));
    if !limits.is_empty() {
        says.push(format!("limits {{ {limits} }}"));
    }
    says.push(match &spec.streams {
        Some(limits) => streams(limits),
        None => "jetstream: disabled".to_owned(),
    });
    let mut lines = vec![format!(
        "# account {} {{ {} }}",
        quoted(&spec.name),
        says.join(", ")
    )];
    let exports = spec.exports.iter().map(export);
    let imports = spec.imports.iter().map(import);
    let mappings = spec.mappings.iter().map(mapping);
    lines.extend(
        exports
            .chain(imports)
            .chain(mappings)
            .map(|line| format!("#   {line}")),
    );
    lines
}

fn said<T: Display>(limits: impl Iterator<Item = (&'static str, T)>) -> String {
    let said: Vec<_> = limits.map(|(key, limit)| format!("{key}: {limit}")).collect();
    said.join(", ")
}

fn streams(limits: &StreamLimits) -> String {
    let all = [
        ("max_mem", limits.memory),
        ("max_file", limits.storage),
        ("max_streams", limits.streams),
        ("max_consumers", limits.consumers),
        ("mem_max_stream_bytes", limits.memory_stream),
        ("disk_max_stream_bytes", limits.storage_stream),
        ("max_ack_pending", limits.ack_pending),
    ];
    let mut said = said(all.into_iter().filter(|(_, limit)| *limit >= 0));
    if limits.bytes_required {
        said.push_str(if said.is_empty() { "" } else { ", " });
        said.push_str("max_bytes_required: true");
    }
    if said.is_empty() {
        "jetstream: enabled".to_owned()
    } else {
        format!("jetstream {{ {said} }}")
    }
}

fn export(export: &Export) -> String {
    let mut says = vec![format!("{}: {}", export.kind, quoted(&export.subject))];
    if let Some(accounts) = &export.accounts {
        let names: Vec<_> = accounts.iter().map(|name| quoted(name)).collect();
        says.push(format!("accounts: [{}]", names.join(", ")));
    }
    if export.account_token_position > 0 {
        says.push(format!(
            "account_token_position: {}",
            export.account_token_position
        ));
    }
    if export.kind == Kind::Service {
        match export.response {
            Response::Singleton => {}
            Response::Stream => says.push("response_type: stream".to_owned()),
            Response::Chunked => says.push("response_type: chunked".to_owned()),
        }
        if export.threshold != THRESHOLD {
            says.push(format!("response_threshold: {}", time(export.threshold)));
        }
    }
    format!("export {{ {} }}", says.join(", "))
}

fn import(import: &Import) -> String {
    let mut says = vec![format!(
        "{}: {{ account: {}, subject: {} }}",
        import.kind,
        quoted(&import.account),
        quoted(&import.subject)
    )];
    if let Some(to) = &import.to {
        says.push(format!("to: {}", quoted(to)));
    }
    if import.share {
        says.push("share: true".to_owned());
    }
    format!("import {{ {} }}", says.join(", "))
}

fn mapping(mapping: &Mapping) -> String {
    let destinations: Vec<_> = mapping
        .destinations
        .iter()
        .map(|to| format!("{} {}%", quoted(to.transform.destination()), to.percent))
        .collect();
    format!("mapping {}: {}", quoted(&mapping.source), destinations.join(", "))
}
