//! Flags by which replicas find each other, and the start of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use fleet::{Fleet, Sharing, SharingOptions, SiblingName};

/// Several replicas over the same pools.
#[derive(Debug, Args)]
pub(crate) struct SharingArgs {
    /// Where other replicas tell this one what they sent to servers; siblings by convention use port 9007.
    #[arg(long, value_name = "ADDR")]
    sharing_listen: Option<SocketAddr>,
    /// The replicas to tell. All addresses of a DNS name are, this process itself left out, and it is resolved again
    /// every five seconds. May be repeated or separated by commas.
    #[arg(long, value_name = "NAME:PORT", value_delimiter = ',')]
    siblings: Vec<SiblingName>,
    /// A file with the text by which replicas know each other.
    #[arg(long, value_name = "FILE")]
    sharing_token_file: Option<PathBuf>,
    /// Folder with `tls.crt`, `tls.key` and `ca.crt`: replicas talk over TLS and verify each other.
    #[arg(long, value_name = "DIR")]
    sharing_cert_path: Option<PathBuf>,
}

impl SharingArgs {
    /// The file with the token.
    pub(crate) fn token_file(&self) -> Option<&PathBuf> {
        self.sharing_token_file.as_ref()
    }

    /// Whether anybody is told.
    pub(crate) fn tells(&self) -> bool {
        !self.siblings.is_empty()
    }

    /// Starts it, if there is; it goes on until the guard is dropped.
    ///
    /// # Errors
    /// The port is in use, or token or certificates cannot be read.
    pub(crate) async fn start(&self, fleet: &Arc<Fleet>) -> anyhow::Result<Option<Sharing>> {
        if !self.tells() && self.sharing_listen.is_none() {
            return Ok(None);
        }
        let guarded = self.sharing_token_file.is_some() || self.sharing_cert_path.is_some();
        let open = |address: &SocketAddr| !guarded && !address.ip().is_loopback();
        if self.sharing_listen.as_ref().is_some_and(open) {
            tracing::warn!(
                "anybody may tell this replica what siblings do: no --sharing-token-file"
            );
        }
        let sharing = Sharing::start(
            fleet,
            SharingOptions {
                listen: self.sharing_listen,
                siblings: self.siblings.clone(),
                token_file: self.sharing_token_file.clone(),
                certificates: self.sharing_cert_path.clone(),
                ..SharingOptions::default()
            },
        )
        .await
        .context("cannot share with other replicas")?;
        if let Some(address) = sharing.address() {
            tracing::info!(%address, "listening for siblings");
        }
        Ok(Some(sharing))
    }
}
