//! `mesh lineage`: which session came from which.

use clap::Args;
use serde_json::json;

use crate::cli::{Context, Failure, output};
use crate::mesh::Error;

/// Draws which session came from which
#[derive(Args, Debug)]
pub struct Lineage {
    /// Only the tree that holds this session
    session: Option<String>,
    /// Print the graph for Graphviz
    #[arg(long, conflicts_with = "json")]
    dot: bool,
}

impl Lineage {
    /// Prints and ends.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let mesh = super::open(context).await?;
        let mut lineage = mesh.lineage().await?;
        if let Some(session) = &self.session {
            // A session that only saved its state is known by those that came from it.
            if !lineage.knows(session) && !lineage.unknown_parents().contains(session.as_str()) {
                return Err(Error::NotFound(format!("nothing was heard of session `{session}`")).into());
            }
            lineage = lineage.tree_of(session);
        }
        if self.dot {
            return output::print(lineage.dot().trim_end());
        }
        if !context.json {
            return output::print(lineage.text().trim_end());
        }
        let (unknown, cycles) = (lineage.unknown_parents(), lineage.in_cycles());
        for session in lineage.sessions() {
            let mut line = json!(session);
            line["parent_known"] = session
                .parent
                .as_deref()
                .is_none_or(|parent| !unknown.contains(parent))
                .into();
            line["cycle"] = cycles.contains(session.session.as_str()).into();
            output::print(line.to_string())?;
        }
        Ok(())
    }
}
