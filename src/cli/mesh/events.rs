//! `mesh events`: what can be said on the mesh.

use clap::Args;

use super::table;
use crate::cli::{Context, Failure, output};
use crate::mesh::{Catalog, identity};

/// Lists the events there are, or shows one with its fields
#[derive(Args, Debug)]
pub struct Events {
    /// The event to show
    name: Option<String>,
    /// Print the documentation page of the built-in events
    #[arg(long, hide = true)]
    markdown: bool,
}

impl Events {
    /// Prints; needs no server.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let catalog = Catalog::load(&identity::events_file())?;
        let text = match &self.name {
            _ if self.markdown => Catalog::builtin().markdown(),
            None if context.json => {
                let lines = catalog.events().iter().map(json);
                lines.collect::<Vec<_>>().join("\n")
            }
            None => list(&catalog),
            Some(name) if context.json => json(catalog.get(name)?),
            Some(name) => one(catalog.get(name)?),
        };
        output::print(text.trim_end())
    }
}

fn json(event: &crate::mesh::catalog::Event) -> String {
    serde_json::to_string(event).expect("strings are always JSON")
}

fn list(catalog: &Catalog) -> String {
    let mut table = table(&["EVENT", "SUBJECT", "SYSTEM", "MEANING"]);
    for event in catalog.events() {
        table.add_row([&event.name, &event.subject, &event.system, &event.meaning]);
    }
    table.to_string()
}

fn one(event: &crate::mesh::catalog::Event) -> String {
    let mut table = table(&["FIELD", "TYPE", "", "MEANING"]);
    for field in &event.fields {
        let need = if field.required { "required" } else { "" };
        table.add_row([&field.name, field.kind.name(), need, &field.meaning]);
    }
    let (name, subject, system) = (&event.name, &event.subject, &event.system);
    format!("{name}  {subject}  ({system})\n{}\n\n{table}", event.meaning)
}
