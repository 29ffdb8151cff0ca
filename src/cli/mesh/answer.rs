//! `mesh answer`: what `mesh ask` asks for.

use clap::Args;

use crate::cli::reply::Service;
use crate::cli::{Context, Failure};
use crate::mesh::{Envelope, Identity};

/// Answers every question on a subject, and says who it is
#[derive(Args, Debug)]
#[command(
    after_help = "Unlike `mesh reply`, whose members share the requests, each `mesh answer` answers each of them, and \
                        signs with its instance and session.\nThe command runs as that of `mesh reply`; if it fails, \
                        its instance counts as one that could not answer.\n\n\
                        Examples:\n  mesh answer deploy.ready yes\n  \
                        mesh answer deploy.ready --command './ready.sh'"
)]
pub struct Answer {
    #[command(flatten)]
    service: Service,
}

impl Answer {
    /// Answers until told to stop.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let signature = Envelope::signed(&Identity::from_env()?).headers();
        self.service.serve(context, None, &signature).await
    }
}
