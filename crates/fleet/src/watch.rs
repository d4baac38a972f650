//! One task for each server: asks it for its load, its health and its models, and tells the core.
//!
//! Load is asked for often while the pool has work and seldom while it has none; the first request after a pause wakes
//! the watchers. Health is probed now and then while all is well, at once when a request or a scrape failed, and often
//! until the server is well again: a lost server comes back by itself. What cannot be learned stays unknown; nothing
//! here ever takes a server out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use scheduling::{AdapterKey, EndpointProfile, Event, Health, Load, Probe};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::catalog::{Listing, adapter_key};
use crate::client::{Client, connects};
use crate::endpoint::Wishes;
use crate::{Endpoint, Error, Page, Pool};

/// Where servers list their models.
const MODELS: &str = "/v1/models";
/// Failed probes in a row after which requests that wait for a server's first byte go elsewhere: more than it takes to
/// keep new requests away, since the work done so far is lost.
const SILENT_AFTER: u32 = 3;
/// Least time between two questions for models, whoever wishes for them.
const MODELS_APART: Duration = Duration::from_secs(1);
/// A server without a metrics page is asked for it this much less often.
const NO_PAGE: u32 = 10;

/// Starts the watcher of a server.
pub(crate) fn spawn(pool: &Arc<Pool>, endpoint: &Arc<Endpoint>) -> AbortHandle {
    tokio::spawn(Watcher::new(pool.clone(), endpoint.clone()).run()).abort_handle()
}

struct Watcher {
    pool: Arc<Pool>,
    endpoint: Arc<Endpoint>,
    client: Client,
    probe_by: ProbeBy,
    /// When what is due; `None`: only on a wish.
    scrape_at: Option<Instant>,
    models_at: Option<Instant>,
    probe_at: Option<Instant>,
    last_scrape: Instant,
    last_models: Option<Instant>,
    well: bool,
    failed_probes: u32,
    /// It has a metrics page, as far as is known.
    has_page: bool,
    profile: EndpointProfile,
    started: Option<f64>,
}

/// How a server can be asked for its health, best first. Engines have `/health`; other servers may only list models,
/// or only take connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ProbeBy {
    Health,
    Models,
    Connect,
}

impl Watcher {
    fn new(pool: Arc<Pool>, endpoint: Arc<Endpoint>) -> Self {
        let now = Instant::now();
        let options = &pool.shared.options;
        let plain = pool.load_only();
        Self {
            client: Client::default(),
            probe_by: if plain {
                ProbeBy::Connect
            } else {
                ProbeBy::Health
            },
            scrape_at: (options.scrape.enabled && !plain).then_some(now),
            models_at: (options.learn_models && !plain).then_some(now),
            probe_at: (!plain).then_some(now),
            last_scrape: now,
            last_models: None,
            well: true,
            failed_probes: 0,
            has_page: true,
            profile: EndpointProfile {
                load_only: plain,
                ..EndpointProfile::default()
            },
            started: None,
            pool,
            endpoint,
        }
    }

    async fn run(mut self) {
        loop {
            self.round().await;
            if !self.endpoint.tried.swap(true, Ordering::AcqRel) {
                self.pool.shared.tried.notify_waiters();
            }
            self.wait().await;
        }
    }

    /// Does what is due.
    async fn round(&mut self) {
        self.hear_wishes();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= Instant::now());
        // A server that does not pass its probe is asked nothing else: each question would only wait for its time to
        // run out.
        let mut answers = self.well;
        if answers && due(self.models_at) {
            answers = self.models().await;
        }
        if answers && due(self.scrape_at) {
            self.scrape().await;
        }
        if due(self.probe_at) {
            self.probe().await;
        }
    }

    fn hear_wishes(&mut self) {
        let wishes = self.endpoint.wishes.take();
        let now = Instant::now();
        if wishes & Wishes::PROBE != 0 {
            self.probe_at = Some(now);
        }
        if wishes & Wishes::MODELS != 0 && self.models_at.is_some() {
            self.models_at = Some(
                self.last_models
                    .map_or(now, |last| (last + MODELS_APART).max(now)),
            );
        }
    }

    /// Sleeps until something is due, is wished for, or the pool gets busy.
    async fn wait(&mut self) {
        let pool = self.pool.clone();
        // Listened to before the look at the pool, so that no beginning of work falls between the two.
        let busy = pool.busy.notified();
        tokio::pin!(busy);
        busy.as_mut().enable();
        let idle = pool.in_flight() == 0;
        if !idle {
            self.hurry();
        }
        let questions = [self.scrape_at, self.models_at]
            .into_iter()
            .flatten()
            .filter(|_| self.well);
        let due = questions.chain(self.probe_at).min();
        let sleep = async {
            match due {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            () = self.endpoint.wishes.changed() => {}
            () = busy, if idle && self.scrape_at.is_some() => self.hurry(),
        }
    }

    /// The pool has work: the next scrape comes after the short time.
    fn hurry(&mut self) {
        if self.has_page {
            let fast = self.last_scrape + self.pool.shared.options.scrape.fast;
            self.scrape_at = self.scrape_at.map(|at| at.min(fast));
        }
    }

    async fn get(&mut self, path: &str, limit: Duration) -> Result<(StatusCode, Bytes), Error> {
        timeout(limit, self.client.get(&self.endpoint, path))
            .await
            .unwrap_or(Err(Error::Timeout))
    }

    /// A question that got no answer: the server is probed at once.
    fn unanswered(&mut self, error: &Error) {
        if !matches!(error, Error::Status(_) | Error::TooLarge(_)) {
            self.probe_at = Some(Instant::now());
        }
        let text = error.to_string();
        tracing::debug!(pool = %self.pool.label, endpoint = %self.endpoint.name, error = text, "server did not answer");
        self.endpoint.seen.lock().error = Some(text);
    }

    async fn scrape(&mut self) {
        let options = &self.pool.shared.options.scrape;
        let (path, limit) = (options.path.clone(), options.timeout);
        let (fast, slow) = (options.fast, options.slow);
        let answer = self
            .get(&path, limit)
            .await
            .and_then(|(status, body)| match status {
                StatusCode::OK => Ok(body),
                other => Err(Error::Status(other.as_u16())),
            });
        let period = match &answer {
            Err(Error::Status(_)) => slow * NO_PAGE,
            Err(_) => slow,
            Ok(_) if self.pool.in_flight() > 0 => fast,
            Ok(_) => slow,
        };
        self.has_page = !matches!(answer, Err(Error::Status(_)));
        self.last_scrape = Instant::now();
        self.scrape_at = Some(self.last_scrape + period);
        match answer {
            Ok(body) => {
                let page = self.pool.shared.pages.read(&body);
                self.scraped(page);
            }
            Err(error) => {
                self.pool
                    .shared
                    .metrics
                    .scrape_failed(&self.pool.label, self.endpoint.name());
                self.unanswered(&error);
            }
        }
    }

    /// Tells the core what a page said.
    fn scraped(&mut self, page: Page) {
        let endpoint = self.endpoint.id;
        let restarted = self
            .started
            .zip(page.started)
            .is_some_and(|(before, now)| before != now);
        self.started = page.started.or(self.started);
        self.note(&page);
        let active: Option<Vec<AdapterKey>> = page
            .lora
            .as_ref()
            .map(|lora| lora.active.iter().map(|name| adapter_key(name)).collect());
        let max = page.lora.as_ref().and_then(|lora| lora.max);
        let profile = EndpointProfile {
            kv_capacity_tokens: page.kv_capacity_tokens.or(self.profile.kv_capacity_tokens),
            max_lora: max.or(self.profile.max_lora),
            ..self.profile
        };
        let changed = profile != self.profile;
        self.profile = profile;
        self.pool.with_core(|core, now| {
            if restarted {
                core.pool.observe(now, Event::CacheCleared { endpoint });
            }
            if changed {
                core.pool.observe(now, Event::Profile { endpoint, profile });
            }
            if page.load != Load::default() {
                core.pool.observe(
                    now,
                    Event::Scraped {
                        endpoint,
                        load: page.load,
                    },
                );
            }
            if let Some(resident) = &active {
                core.pool.observe(
                    now,
                    Event::Adapters {
                        endpoint,
                        resident,
                        loading: &[],
                        max,
                    },
                );
            }
        });
    }

    /// Notes a page for status and metrics.
    fn note(&self, page: &Page) {
        let mut seen = self.endpoint.seen.lock();
        seen.engine = page.engine.or(seen.engine);
        seen.load = page.load;
        seen.load_at = Some(self.pool.shared.now());
        seen.error = None;
    }

    /// Asks for the models; says whether the server answered at all.
    async fn models(&mut self) -> bool {
        let options = &self.pool.shared.options;
        let (period, limit) = (options.models_period, options.probe.timeout);
        let answer = self.get(MODELS, limit).await;
        let now = Instant::now();
        self.last_models = Some(now);
        let answered = answer.is_ok();
        let listing = match answer {
            Ok((StatusCode::OK, body)) => match llm::parse_models(&body) {
                Some(list) => Some(Listing::Models(list.into(), body)),
                None => Some(Listing::None),
            },
            Ok((status, _))
                if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS =>
            {
                Some(Listing::None)
            }
            Ok(_) => None,
            Err(error) => {
                self.unanswered(&error);
                None
            }
        };
        self.models_at = Some(
            now + if listing.is_some() {
                period
            } else {
                period.min(MODELS_APART)
            },
        );
        if let Some(listing) = listing {
            self.pool.listed(&self.endpoint, listing);
        }
        answered
    }

    async fn probe(&mut self) {
        let options = &self.pool.shared.options.probe;
        let (period, suspect_period) = (options.period, options.suspect_period);
        let outcome = self.ask_health().await;
        let ok = outcome == Probe::Passed;
        self.pool.observe(Event::Probe {
            endpoint: self.endpoint.id,
            outcome,
        });
        let healthy = self
            .pool
            .view(&self.endpoint)
            .is_some_and(|view| view.health == Health::Up);
        let now = Instant::now();
        self.probe_at = match (ok && healthy, self.pool.load_only()) {
            (true, true) => None,
            (true, false) => Some(now + period),
            (false, _) => Some(now + suspect_period),
        };
        if ok && !self.well {
            tracing::info!(pool = %self.pool.label, endpoint = %self.endpoint.name, "server is back");
            // It may be another process with other models.
            self.models_at = self.models_at.map(|_| now);
            self.scrape_at = self.scrape_at.map(|_| now);
            self.endpoint.seen.lock().error = None;
        } else if !ok && self.well {
            tracing::warn!(pool = %self.pool.label, endpoint = %self.endpoint.name, "server does not pass its probe");
        }
        self.well = ok;
        self.failed_probes = if ok {
            0
        } else {
            self.failed_probes.saturating_add(1)
        };
        let silent = self.failed_probes >= SILENT_AFTER;
        self.endpoint
            .silent
            .send_if_modified(|known| std::mem::replace(known, silent) != silent);
    }

    /// Asks in the best way that the server knows.
    async fn ask_health(&mut self) -> Probe {
        let options = &self.pool.shared.options.probe;
        let (path, limit) = (options.path.clone(), options.timeout);
        loop {
            let (path, next) = match self.probe_by {
                ProbeBy::Health => (path.as_str(), ProbeBy::Models),
                ProbeBy::Models => (MODELS, ProbeBy::Connect),
                ProbeBy::Connect => {
                    return match timeout(limit, connects(&self.endpoint)).await {
                        Ok(Ok(())) => Probe::Passed,
                        Ok(Err(error)) => failed(&error),
                        Err(_) => Probe::Failed,
                    };
                }
            };
            match self.get(path, limit).await {
                Ok((status, _)) if status.is_success() => return Probe::Passed,
                Ok((status, _))
                    if status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED =>
                {
                    self.probe_by = next;
                }
                Ok((status, _)) => {
                    self.endpoint.seen.lock().error =
                        Some(Error::Status(status.as_u16()).to_string());
                    return Probe::Failed;
                }
                Err(error) => {
                    self.endpoint.seen.lock().error = Some(error.to_string());
                    return failed(&error);
                }
            }
        }
    }
}

/// What a question that got no answer says about the server.
fn failed(error: &Error) -> Probe {
    match error {
        Error::Connect(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Probe::Refused
        }
        _ => Probe::Failed,
    }
}
