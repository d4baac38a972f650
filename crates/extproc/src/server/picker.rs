//! The decision for a request that a proxy asks about: the same way as our own data plane takes.
//!
//! The path says what the body is; the body, read in place, says the model and the prompt; the pool's objects turn these
//! into a target and a class; the pool picks. Requests whose body stays with the proxy are picked for by load alone, and
//! so is everything that is no request for inference.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use fleet::{Endpoint, Fleet, Lease, Owner, PickRequest, Pool, StateLost, Understood};
use llm::{Dialect, RequestView};
use routing::PoolKey;
use scheduling::RequestKind;
use telemetry::Metrics;
use tokio::time::Instant;

use super::exchange::Exchange;
use super::head::{self, DESTINATION, NAMESPACE, RequestHead};
use super::machine::{Forward, Seen, SeenBody, Verdict};
use super::refusal::Refusal;
use super::reply::set;
use crate::metadata::{Metadata, text_struct};
use crate::proto::ext_proc::HeaderMutation;

/// Settings of a picker.
#[derive(Debug, Clone)]
pub struct PickerOptions {
    /// Largest request body in bytes.
    pub max_body: usize,
    /// Clients are trusted with fields by which engines steer each other.
    pub trusted: bool,
    /// Heed the proxy's choice of servers.
    pub subset: bool,
    /// Let the request header `test-epp-endpoint-selection` narrow the choice, as conformance tests ask.
    pub test_selection: bool,
    /// Most servers to name behind the picked one, for proxies that walk the list when a server fails. Others, such as
    /// Envoy's original-destination clusters, read one address and refuse a list.
    pub fallbacks: usize,
}

impl Default for PickerOptions {
    fn default() -> Self {
        Self {
            max_body: 64 << 20,
            trusted: false,
            subset: true,
            test_selection: false,
            fallbacks: usize::MAX,
        }
    }
}

/// Picks servers of one pool.
#[derive(Debug)]
pub struct Picker {
    fleet: Arc<Fleet>,
    key: PoolKey,
    pub(super) metrics: Arc<Metrics>,
    pub(super) options: PickerOptions,
}

impl Picker {
    /// A picker for the pool `key` of `fleet`; it need not run yet.
    #[must_use]
    pub fn new(
        fleet: Arc<Fleet>,
        key: PoolKey,
        metrics: Arc<Metrics>,
        options: PickerOptions,
    ) -> Arc<Self> {
        Arc::new(Self {
            fleet,
            key,
            metrics,
            options,
        })
    }

    /// Decides. The exchange goes on with the answer; dropping the future takes the request back.
    pub(super) async fn decide(
        self: Arc<Self>,
        seen: Box<Seen>,
        started: Instant,
        traceparent: Option<String>,
    ) -> (Verdict, Box<Exchange>) {
        let Seen {
            head,
            metadata,
            body,
        } = *seen;
        let mut head = RequestHead::read(head);
        let forward_trace = head.traceparent.is_none();
        if forward_trace {
            head.traceparent = traceparent;
        }
        let mut exchange = Exchange::begin(self.clone(), started, head);
        let verdict = match self.pick(&mut exchange, metadata.as_ref(), body).await {
            Ok(picked) => Verdict::Forward(Box::new(forward(&exchange, picked, forward_trace))),
            Err(refusal) => Verdict::Refuse(Box::new(refuse(&mut exchange, &refusal))),
        };
        (verdict, exchange)
    }

    async fn pick(
        &self,
        exchange: &mut Exchange,
        metadata: Option<&Metadata>,
        body: SeenBody,
    ) -> Result<Picked, Refusal> {
        let pool = self.fleet.pool(&self.key).ok_or(Refusal::NoPool)?;
        exchange.pool = Some(pool.clone());
        let allowed = self.allowed(&pool, exchange, metadata);
        let body = match body {
            SeenBody::TooLarge => return Err(Refusal::TooLarge(self.options.max_body)),
            SeenBody::Whole(body) => Some((body, true)),
            SeenBody::Part(body) => Some((body, false)),
            SeenBody::None | SeenBody::Unseen => None,
        };
        let seen = body.as_ref().map_or(0, |(body, _)| body.len());
        exchange.request_bytes = seen as u64;
        let size = body.as_ref().filter(|(_, whole)| *whole).map(|_| seen);
        let pieces = match self.read(exchange, &pool, body)? {
            Reading::Inference(pieces) => pieces,
            Reading::Opaque(pinned) => {
                let request = PickRequest {
                    request_id: exchange.id(),
                    kind: RequestKind::Opaque,
                    bytes: exchange.request_bytes,
                    flow: exchange.head.flow(),
                    pinned,
                    allowed: allowed.as_deref(),
                    explain: exchange.head.explain,
                    ..PickRequest::default()
                };
                let lease = pool.pick(request).await.map_err(Refusal::Rejected)?;
                return Ok(Picked::new(self.named(exchange.leased(lease)), None, size));
            }
        };
        let lease = {
            let Some(understood) = &exchange.understood else {
                return Err(Refusal::NoPool);
            };
            let request = PickRequest {
                allowed: allowed.as_deref(),
                explain: exchange.head.explain,
                ..understood.request(exchange.id(), exchange.request_bytes, exchange.head.flow())
            };
            pool.pick(request).await.map_err(Refusal::Rejected)?
        };
        let length = pieces
            .as_ref()
            .map(|pieces| pieces.iter().map(Bytes::len).sum())
            .or(size);
        Ok(Picked::new(
            self.named(exchange.leased(lease)),
            pieces,
            length,
        ))
    }

    /// The servers of a pick that the proxy is told.
    fn named<'a>(&self, lease: &'a Lease) -> &'a [Arc<Endpoint>] {
        let all = lease.endpoints();
        &all[..all.len().min(self.options.fallbacks.saturating_add(1))]
    }

    /// What the request is, and its body with another model's name in it where that is asked for.
    fn read(
        &self,
        exchange: &mut Exchange,
        pool: &Arc<Pool>,
        body: Option<(Bytes, bool)>,
    ) -> Result<Reading, Refusal> {
        let method = exchange.head.method.clone();
        let dialect = match llm::route(&method, &exchange.head.path) {
            llm::Route::Inference(dialect) => dialect,
            llm::Route::Stateful { kind, id } => {
                return match pool.owner_of(kind, id) {
                    Some(Owner::Gone) => Err(Refusal::StateLost(id.to_owned())),
                    Some(Owner::Here(owner)) => Ok(Reading::Opaque(Some(owner))),
                    None => Ok(Reading::Opaque(None)),
                };
            }
            _ => return Ok(Reading::Opaque(None)),
        };
        exchange.dialect = Some(dialect);
        let Some((body, whole)) = body else {
            return Ok(Reading::Opaque(None));
        };
        let content_type = exchange.head.content_type.as_deref();
        let view = match llm::read(dialect, content_type, &body) {
            Ok(view) => view,
            // The part that is not here may be what is missing.
            Err(_) if !whole => return Ok(Reading::Opaque(None)),
            Err(error) => return Err(Refusal::Body(error)),
        };
        if let (Some(field), false) = (view.reserved_field, self.options.trusted) {
            return Err(Refusal::Reserved(field));
        }
        let understood = Understood::read(pool, &view, exchange.head.hints(), rand::random())
            .map_err(|StateLost(id)| Refusal::StateLost(id))?;
        let pieces = splice(&body, &view, understood.target.as_deref()).filter(|_| whole);
        exchange.runs(understood);
        Ok(Reading::Inference(pieces))
    }

    /// The servers that the proxy allows; `None`: all.
    fn allowed(
        &self,
        pool: &Pool,
        exchange: &Exchange,
        metadata: Option<&Metadata>,
    ) -> Option<Vec<Arc<Endpoint>>> {
        let tested = exchange
            .head
            .test_selection
            .as_deref()
            .filter(|_| self.options.test_selection)
            .map(|text| {
                text.split(',')
                    .map(|entry| entry.trim().to_owned())
                    .collect()
            });
        let entries: Vec<String> = match tested {
            Some(entries) => entries,
            None => head::subset(metadata.filter(|_| self.options.subset))?,
        };
        Some(
            pool.servers()
                .into_iter()
                .filter(|server| {
                    entries
                        .iter()
                        .any(|entry| head::names(entry, server.address()))
                })
                .collect(),
        )
    }
}

/// What a request turned out to be.
enum Reading {
    /// Work for a model, with the body in pieces if it changes.
    Inference(Option<[Bytes; 3]>),
    /// Anything else, and the server that holds what it is about.
    Opaque(Option<Arc<Endpoint>>),
}

/// A pick in the protocol's words.
struct Picked {
    /// `address,address`: the pick and its fallbacks.
    destination: String,
    pieces: Option<[Bytes; 3]>,
    /// Length of the body as it is sent on, where that is known.
    length: Option<usize>,
}

impl Picked {
    fn new(servers: &[Arc<Endpoint>], pieces: Option<[Bytes; 3]>, length: Option<usize>) -> Self {
        use std::fmt::Write;
        let mut destination = String::new();
        for endpoint in servers {
            let address: SocketAddr = endpoint.address();
            let comma = if destination.is_empty() { "" } else { "," };
            // Writing to a string does not fail.
            let _ = write!(destination, "{comma}{address}");
        }
        Self {
            destination,
            pieces,
            length,
        }
    }
}

fn forward(exchange: &Exchange, picked: Picked, forward_trace: bool) -> Forward {
    let mut headers = vec![set(DESTINATION, picked.destination.clone())];
    if exchange.fresh_id {
        headers.push(set("x-request-id", exchange.request_id.clone()));
    }
    if let Some(length) = picked.length {
        headers.push(set("content-length", length.to_string()));
    }
    if let (Some(trace), true) = (&exchange.head.traceparent, forward_trace) {
        headers.push(set("traceparent", trace.clone()));
    }
    let remove_headers = exchange
        .head
        .consumed
        .iter()
        .filter(|name| *name != DESTINATION)
        .cloned()
        .collect();
    let destination = prost_types::Value {
        kind: Some(prost_types::value::Kind::StructValue(text_struct(
            DESTINATION,
            &picked.destination,
        ))),
    };
    Forward {
        headers: HeaderMutation {
            set_headers: headers,
            remove_headers,
        },
        metadata: Some(prost_types::Struct {
            fields: [(NAMESPACE.to_owned(), destination)].into(),
        }),
        body: picked.pieces,
        answer_headers: Some(HeaderMutation {
            set_headers: vec![set("x-request-id", exchange.request_id.clone())],
            remove_headers: Vec::new(),
        }),
        tell_served: exchange.tells_served(),
        clear_route_cache: true,
    }
}

fn refuse(exchange: &mut Exchange, refusal: &Refusal) -> crate::proto::ext_proc::ImmediateResponse {
    let answer = refusal.answer(exchange.style, exchange.request_id.clone());
    let (status, code) = refusal.code();
    exchange.refused(status, code, answer.body.len());
    answer
}

/// The body with another model's name in it.
fn splice(body: &Bytes, view: &RequestView<'_>, target: Option<&str>) -> Option<[Bytes; 3]> {
    let (model, target) = (view.model.as_ref()?, target?);
    let is_json = !matches!(
        view.dialect,
        Dialect::AudioTranscriptions | Dialect::AudioTranslations
    );
    Some(llm::splice_model(body, model.span.clone(), is_json, target))
}
