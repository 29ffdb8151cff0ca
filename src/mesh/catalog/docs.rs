//! The catalog as a Markdown page, `docs/events.md`.

use std::fmt::Write;

use super::Catalog;

const INTRO: &str = "\
# Events of the mesh

<!-- Generated from the catalog by `mesh events --markdown`; a test holds this page to it. -->

Each event is a JSON object on its subject; `mesh emit` checks a body against the fields below and refuses what
does not fit (`--force` sends it all the same). A body may hold more fields than listed. Who sent it and when is in the headers:

| header | says |
|---|---|
| `Mesh-Event` | the event's name |
| `Mesh-Instance` | who sent it: `$MESH_INSTANCE`, else the host's name |
| `Mesh-Session` | `$MESH_SESSION`, if set |
| `Mesh-Parent` | `$MESH_PARENT_SESSION`, if set |
| `Mesh-Seq` | counts an instance's events, from 1, without gaps |
| `Mesh-Time` | the sender's clock, RFC 3339 |
| `Nats-Msg-Id` | unique, so that a retry is stored once |

Events of your own go into the file that `$MESH_EVENTS` names, else `mesh/events.json` in the configuration directory
(`$XDG_CONFIG_HOME`, else `~/.config`):

```json
{\"events\": [{\"name\": \"build_done\", \"subject\": \"mesh.build.done\", \"system\": \"Builder\", \"meaning\": \"a build ended\",
  \"fields\": [{\"name\": \"ok\", \"type\": \"flag\", \"required\": true, \"meaning\": \"whether it passed\"}]}]}
```

Types are `text`, `number`, `integer`, `flag`, `list` and `object`. Rules for conflicts go into the same file, see
[conflicts.md](conflicts.md).
";

/// The whole page.
pub(super) fn page(catalog: &Catalog) -> String {
    let mut page = INTRO.to_owned();
    let mut systems = catalog.systems();
    for event in catalog.events() {
        if !systems.contains(&event.system.as_str()) {
            systems.push(&event.system);
        }
    }
    for system in systems {
        write!(page, "\n## {system}\n").expect("a String takes all");
        for event in catalog.events().iter().filter(|event| event.system == system) {
            write!(
                page,
                "\n### `{}`\n`{}`: {}.\n\n| field | type | | says |\n|---|---|---|---|\n",
                event.name, event.subject, event.meaning
            )
            .expect("a String takes all");
            for field in &event.fields {
                let need = if field.required { "required" } else { "" };
                let (name, kind) = (&field.name, field.kind.name());
                writeln!(page, "| `{name}` | {kind} | {need} | {} |", field.meaning)
                    .expect("a String takes all");
            }
        }
    }
    page
}
