//! Leader election by a Lease (`coordination.k8s.io/v1`): of several copies of a program, one writes.
//!
//! A copy that holds the Lease renews it; another may take it when nothing was renewed for the Lease's duration. As in
//! client-go, nobody's clock is compared with another's: each copy measures, on its own clock, how long it has seen the
//! Lease unchanged. A leader that cannot renew stops leading before others may take over. Writes carry the resource
//! version that was read, so of two takers one wins.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// Settings of an [`Election`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElectionOptions {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease; copies with the same name compete.
    pub name: String,
    /// Who we are; different for every copy.
    pub identity: String,
    /// How long a Lease counts without being renewed. Whole seconds.
    pub duration: Duration,
    /// Time between two attempts to get or renew it; well below `duration`.
    pub retry: Duration,
}

impl ElectionOptions {
    /// An election in which a lost leader is replaced within 15 seconds, as with client-go's usual settings.
    pub fn new(
        namespace: impl Into<String>,
        name: impl Into<String>,
        identity: impl Into<String>,
    ) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            duration: Duration::from_secs(15),
            retry: Duration::from_secs(2),
        }
    }
}

/// A running election.
#[derive(Debug)]
pub struct Election {
    leading: watch::Receiver<bool>,
    resign: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Election {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Election {
    /// Begins to compete. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(client: Client, options: ElectionOptions) -> Self {
        let (leads, leading) = watch::channel(false);
        let (resign, resigned) = oneshot::channel();
        let candidate = Candidate {
            leases: Api::namespaced(client, &options.namespace),
            options,
            seen: None,
            renewed: None,
            leads,
        };
        let task = tokio::spawn(candidate.run(resigned));
        Self {
            leading,
            resign: Some(resign),
            task,
        }
    }

    /// Whether this copy leads, as it changes.
    #[must_use]
    pub fn leading(&self) -> watch::Receiver<bool> {
        self.leading.clone()
    }

    /// Gives the Lease back, so that another copy need not wait until it runs out. Takes a moment at most.
    pub async fn resign(mut self) {
        if let Some(resign) = self.resign.take() {
            let _ = resign.send(());
            let _ = tokio::time::timeout(Duration::from_secs(2), &mut self.task).await;
        }
    }
}

struct Candidate {
    leases: Api<Lease>,
    options: ElectionOptions,
    /// The Lease's resource version, and since when we have seen it.
    seen: Option<(String, Instant)>,
    /// When our last renewal was begun that succeeded.
    renewed: Option<Instant>,
    leads: watch::Sender<bool>,
}

impl Candidate {
    async fn run(mut self, mut resigned: oneshot::Receiver<()>) {
        let mut complained = false;
        loop {
            let began = Instant::now();
            // An answer that takes longer than this is of no use: we must have stopped leading by then.
            let limit = self.options.duration.saturating_sub(self.options.retry);
            match tokio::time::timeout(limit, self.attempt()).await {
                Ok(Ok(Turn::Ours)) => {
                    self.renewed = Some(began);
                    complained = false;
                }
                Ok(Ok(Turn::Theirs)) => self.renewed = None,
                // Somebody touched the Lease at the same moment; the next attempt will tell who has it.
                Ok(Ok(Turn::Unclear)) => {}
                Ok(Err(error)) if !complained => {
                    complained = true;
                    tracing::warn!(lease = self.options.name, %error, "the Lease cannot be had; statuses wait");
                }
                Ok(Err(_)) | Err(_) => {}
            }
            self.judge();
            tokio::select! {
                () = tokio::time::sleep(self.options.retry) => {}
                _ = &mut resigned => break,
            }
            self.judge();
        }
        self.leads.send_replace(false);
        if self.renewed.is_some() {
            self.give_back().await;
        }
    }

    /// We lead while our last renewal is younger than the duration, less one attempt.
    fn judge(&mut self) {
        let grace = self.options.duration.saturating_sub(self.options.retry);
        let leads = self
            .renewed
            .is_some_and(|renewed| renewed.elapsed() < grace);
        let name = &self.options.name;
        self.leads.send_if_modified(|before| {
            let changed = *before != leads;
            if changed {
                tracing::info!(lease = name, leads, "leader election");
            }
            *before = leads;
            changed
        });
    }

    /// Tries to get or renew the Lease.
    async fn attempt(&mut self) -> Result<Turn, kube::Error> {
        let Some(lease) = self.leases.get_opt(&self.options.name).await? else {
            return self.create().await;
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != version) {
            self.seen = Some((version, Instant::now()));
        }
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if !holder.is_empty() && holder != self.options.identity && !self.is_over(&spec) {
            return Ok(Turn::Theirs);
        }
        self.take(lease, spec).await
    }

    /// Whether somebody else's Lease has been unchanged for as long as it counts.
    fn is_over(&self, spec: &LeaseSpec) -> bool {
        let seconds = spec.lease_duration_seconds.unwrap_or_default().max(0);
        let duration = Duration::from_secs(u64::from(seconds.unsigned_abs()));
        self.seen
            .as_ref()
            .is_some_and(|(_, since)| since.elapsed() >= duration)
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = before
            .filter(|before| before.holder_identity.as_deref() == Some(&self.options.identity));
        let transitions = before
            .and_then(|before| before.lease_transitions)
            .unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.options.identity.clone()),
            lease_duration_seconds: i32::try_from(self.options.duration.as_secs()).ok(),
            acquire_time: ours
                .and_then(|ours| ours.acquire_time.clone())
                .or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions + i32::from(before.is_some() && ours.is_none())),
            ..LeaseSpec::default()
        }
    }

    async fn create(&mut self) -> Result<Turn, kube::Error> {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.options.name.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(self.spec(None)),
        };
        won(self.leases.create(&PostParams::default(), &lease).await)
    }

    /// Makes a Lease ours, unless somebody was faster.
    async fn take(&mut self, mut lease: Lease, before: LeaseSpec) -> Result<Turn, kube::Error> {
        lease.spec = Some(self.spec(Some(&before)));
        let name = &self.options.name;
        won(self
            .leases
            .replace(name, &PostParams::default(), &lease)
            .await)
    }

    async fn give_back(&mut self) {
        let Ok(Some(mut lease)) = self.leases.get_opt(&self.options.name).await else {
            return;
        };
        let Some(spec) = &mut lease.spec else { return };
        if spec.holder_identity.as_deref() != Some(&self.options.identity) {
            return;
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        let name = &self.options.name;
        if let Err(error) = self
            .leases
            .replace(name, &PostParams::default(), &lease)
            .await
        {
            tracing::debug!(%error, "the Lease could not be given back; it runs out by itself");
        }
    }
}

/// Whose turn it is after an attempt.
enum Turn {
    Ours,
    Theirs,
    Unclear,
}

fn won(written: Result<Lease, kube::Error>) -> Result<Turn, kube::Error> {
    match written {
        Ok(_) => Ok(Turn::Ours),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Turn::Unclear),
        Err(error) => Err(error),
    }
}
