//! From a clean head to a backend: the rule, its filters, the weighted choice.

use std::rc::Rc;
use std::sync::Arc;

use fleet::Pool;
use http::header::HOST;
use http::header::HeaderValue;
use http::request::Parts;
use http::{Method, Response};
use routing::{Filter, Matched, Plan, PoolKey, RequestHead, Rule, Target};
use smallvec::SmallVec;

use super::head::{self, Hints};
use super::mirror::{self, Shadow};
use super::{Client, Exchange};
use crate::cors;
use crate::filters::{self, Effect};
use crate::refusal::Refusal;
use crate::worker::Worker;

/// Where a request goes.
#[derive(Debug)]
pub(crate) struct Routed {
    /// The rule that matched.
    pub(crate) rule: Arc<Rule>,
    /// The backend chosen among the rule's.
    pub(crate) backend: usize,
    /// The pools it leads to: one, or several to choose from by model.
    pub(crate) pools: SmallVec<[Arc<Pool>; 1]>,
    /// Whether the client is trusted.
    pub(crate) trusted: bool,
    /// Whether the client speaks TLS.
    pub(crate) tls: bool,
    /// What the head told.
    pub(crate) hints: Hints,
    /// Copies that are to be made.
    pub(crate) shadows: Vec<Shadow>,
}

impl Routed {
    /// The filters of the backend.
    pub(crate) fn backend_filters(&self) -> &[Filter] {
        self.rule
            .backends
            .get(self.backend)
            .map_or(&[], |backend| &backend.filters)
    }
}

/// What routing came to.
pub(crate) enum Place {
    /// A filter has answered.
    Answered(Response<()>),
    /// A backend should be asked.
    Backend(Routed),
}

/// Finds the backend of a request, and leaves its head as the backend should see it.
pub(crate) fn find(
    client: &Rc<Client>,
    exchange: &mut Exchange,
    head: &mut Parts,
) -> Result<Place, Refusal> {
    let worker = &client.worker;
    let plan = worker.plan.load();
    let asked = RequestHead {
        method: &head.method,
        host: &exchange.host,
        path: head.uri.path(),
        query: head.uri.query(),
        headers: &head.headers,
        sni: client.sni.as_deref(),
    };
    let preflight = cors::preflight_for(&head.method, &head.headers);
    let matched = matched(&plan, client.port, &asked, preflight.as_ref())?;
    let rule = matched.rule.clone();
    let matched_prefix = matched.matched_prefix;
    let trusted = matched.listener.trusted || worker.options.trusted;
    exchange.rule = Some(rule.clone());

    if head.uri.authority().is_some()
        && let Some(authority) = head.uri.authority()
    {
        // HTTP/2 and absolute targets say the host in the target.
        let value = HeaderValue::try_from(authority.as_str())
            .map_err(|_| Refusal::Framing("bad authority"))?;
        head.headers.insert(HOST, value);
    }
    let hints = head::sanitise(&mut head.headers, trusted)?;
    let mut target = filters::Target {
        headers: &mut head.headers,
        uri: &mut head.uri,
        host: &exchange.host,
        tls: client.tls,
        port: client.port,
        matched_prefix,
        preflight: preflight.is_some(),
        marks: None,
    };
    let effect = filters::change_request(&rule.filters, &mut target);
    exchange.marks.clone_from(&target.marks);
    if let Effect::Answer(answer) = effect? {
        return Ok(Place::Answered(answer));
    }
    let mut shadows = mirror::drawn(
        worker,
        &rule.filters,
        (&head.method, target.uri, target.headers),
    );
    let Some(backend) = rule.choose(worker.roll()) else {
        return Err(Refusal::Backend("the rule has no backend".into()));
    };
    let effect = filters::change_request(&backend.filters, &mut target);
    exchange.marks.clone_from(&target.marks);
    if let Effect::Answer(answer) = effect? {
        return Ok(Place::Answered(answer));
    }
    shadows.extend(mirror::drawn(
        worker,
        &backend.filters,
        (&head.method, target.uri, target.headers),
    ));
    let keys = match &backend.target {
        Target::Pool(key) => std::slice::from_ref(key),
        Target::ByModel(keys) => keys,
        Target::Invalid(reason) => return Err(Refusal::Backend(reason.clone())),
    };
    let pools = running(worker, keys)?;
    let backend = rule
        .backends
        .iter()
        .position(|other| std::ptr::eq(other, backend))
        .unwrap_or_default();
    Ok(Place::Backend(Routed {
        rule,
        backend,
        pools,
        trusted,
        tls: client.tls,
        hints,
        shadows,
    }))
}

/// The rule of a request. A preflight belongs to the rule of the request that it asks for.
fn matched<'p>(
    plan: &'p Plan,
    port: u16,
    asked: &RequestHead<'_>,
    preflight: Option<&Method>,
) -> Result<Matched<'p>, Refusal> {
    let meant = preflight.and_then(|method| {
        let matched = plan.route(port, &RequestHead { method, ..*asked });
        matched.ok().filter(|matched| has_cors(matched.rule))
    });
    match meant {
        Some(matched) => Ok(matched),
        None => plan.route(port, asked).map_err(Refusal::NoRoute),
    }
}

/// Whether the rule has a say in what scripts of other origins may read.
fn has_cors(rule: &Rule) -> bool {
    let backends = rule.backends.iter().flat_map(|backend| &backend.filters);
    let mut filters = rule.filters.iter().chain(backends);
    filters.any(|filter| matches!(filter, Filter::Cors(_)))
}

/// The pools by these names that run already.
fn running(worker: &Worker, keys: &[PoolKey]) -> Result<SmallVec<[Arc<Pool>; 1]>, Refusal> {
    let pools: SmallVec<[Arc<Pool>; 1]> = keys
        .iter()
        .filter_map(|key| worker.fleet.pool(key))
        .collect();
    if pools.is_empty() {
        Err(Refusal::NoPool)
    } else {
        Ok(pools)
    }
}
