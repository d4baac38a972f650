//! Tells a proxy, before it chooses a route, which model a body names.
//!
//! A body-based router in the words of the Gateway API inference extension: the model goes into `X-Gateway-Model-Name`,
//! and the model under it, which a ConfigMap tells for adapters, into `X-Gateway-Base-Model-Name`; the route is chosen
//! anew. A body that names no model passes without. One that is no JSON ends the stream with an error, as the reference
//! does, so that the proxy's failure mode decides.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde::Deserialize;
use telemetry::Metrics;
use tonic::Status;

use super::head::RequestHead;
use super::machine::{Forward, Seen, SeenBody, Verdict};
use super::reply::set;
use crate::proto::ext_proc::HeaderMutation;

/// The model that the body names.
pub const MODEL: &str = "x-gateway-model-name";
/// The base model of that one.
pub const BASE_MODEL: &str = "x-gateway-base-model-name";

/// Base models by the name of an adapter, and of themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BaseModels(HashMap<String, String>);

impl BaseModels {
    /// Adds a base model and adapters on it. Names are trimmed; empty ones are none. Of two base models for one adapter
    /// the last one counts.
    pub fn add<'a>(&mut self, base: &str, adapters: impl IntoIterator<Item = &'a str>) {
        let base = base.trim();
        if base.is_empty() {
            return;
        }
        self.0.insert(base.to_owned(), base.to_owned());
        for adapter in adapters {
            let adapter = adapter.trim();
            if !adapter.is_empty() {
                self.0.insert(adapter.to_owned(), base.to_owned());
            }
        }
    }

    fn base_of(&self, model: &str) -> &str {
        self.0.get(model).map_or("", String::as_str)
    }
}

/// Tells the model.
#[derive(Debug)]
pub struct BodyRouter {
    bases: ArcSwap<BaseModels>,
    max_body: usize,
    metrics: Arc<Metrics>,
}

/// The one field that matters; serde refuses it twice.
#[derive(Deserialize)]
struct Named {
    model: Option<serde_json::Value>,
}

impl BodyRouter {
    /// A router that takes bodies up to `max_body` bytes.
    #[must_use]
    pub fn new(max_body: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            bases: ArcSwap::default(),
            max_body,
            metrics,
        })
    }

    /// Takes new base models.
    pub fn set_bases(&self, bases: BaseModels) {
        self.bases.store(Arc::new(bases));
    }

    pub(super) fn max_body(&self) -> usize {
        self.max_body
    }

    /// What becomes of a request.
    pub(super) fn route(&self, seen: &Seen) -> Result<Verdict, Status> {
        let body = match &seen.body {
            SeenBody::Whole(body) => body,
            SeenBody::TooLarge => {
                return Err(Status::resource_exhausted("the body is over the limit"));
            }
            SeenBody::None | SeenBody::Unseen | SeenBody::Part(_) => return Ok(pass()),
        };
        match self.model(seen, body) {
            Ok(Some(model)) => {
                self.metrics.body_routed(telemetry::BodyRouted::Success);
                Ok(self.told(&model))
            }
            Ok(None) => {
                self.metrics.body_routed(telemetry::BodyRouted::NoModel);
                Ok(pass())
            }
            Err(error) => {
                self.metrics.body_routed(telemetry::BodyRouted::NotParsed);
                Err(error)
            }
        }
    }

    fn model(&self, seen: &Seen, body: &Bytes) -> Result<Option<String>, Status> {
        let head = RequestHead::read(seen.head.clone());
        if let llm::Route::Inference(dialect) = llm::route(&head.method, &head.path)
            && let Ok(view) = llm::read(dialect, head.content_type.as_deref(), body)
        {
            let named = view.model.map(|model| model.name.into_owned());
            return Ok(named.filter(|name| !name.is_empty()));
        }
        let no_object = || Status::invalid_argument("the body is not a JSON object");
        // serde would take a list for an object whose fields stand in order.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(no_object());
        }
        let named: Named = serde_json::from_slice(body).map_err(|_| no_object())?;
        Ok(match named.model {
            Some(serde_json::Value::String(name)) if !name.is_empty() => Some(name),
            _ => None,
        })
    }

    fn told(&self, model: &str) -> Verdict {
        let bases = self.bases.load();
        Verdict::Forward(Box::new(Forward {
            headers: HeaderMutation {
                set_headers: vec![
                    set(MODEL, model.to_owned()),
                    set(BASE_MODEL, bases.base_of(model).to_owned()),
                ],
                remove_headers: Vec::new(),
            },
            clear_route_cache: true,
            ..Forward::default()
        }))
    }
}

/// Nothing is known.
fn pass() -> Verdict {
    Verdict::Forward(Box::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ext_proc::HttpHeaders;

    fn router() -> Arc<BodyRouter> {
        let router = BodyRouter::new(1 << 20, Metrics::new());
        let mut bases = BaseModels::default();
        bases.add(" llama ", ["sql-lora", " ", "chat-lora "]);
        router.set_bases(bases);
        router
    }

    fn routed(body: &str) -> Result<Vec<(String, Bytes)>, Status> {
        let seen = Seen {
            head: HttpHeaders::default(),
            metadata: None,
            body: SeenBody::Whole(Bytes::copy_from_slice(body.as_bytes())),
        };
        let Verdict::Forward(forward) = router().route(&seen)? else {
            panic!("never refuses by itself");
        };
        assert_eq!(
            forward.clear_route_cache,
            !forward.headers.set_headers.is_empty()
        );
        let options = forward.headers.set_headers.into_iter();
        Ok(options
            .filter_map(|o| o.header)
            .map(|h| (h.key, h.raw_value))
            .collect())
    }

    #[test]
    fn a_model_is_told_with_its_base_and_nothing_otherwise() {
        let told = |model: &'static str, base: &'static str| {
            vec![
                (MODEL.to_owned(), model.into()),
                (BASE_MODEL.to_owned(), base.into()),
            ]
        };
        for (body, expected) in [
            (r#"{"model":"llama"}"#, told("llama", "llama")),
            (
                r#"{"prompt":"x","model":"chat-lora"}"#,
                told("chat-lora", "llama"),
            ),
            (r#"{"model":"other"}"#, told("other", "")),
            (r#"{"model":7}"#, vec![]),
            (r#"{"model":""}"#, vec![]),
            (r#"{"prompt":"x"}"#, vec![]),
        ] {
            assert_eq!(routed(body).unwrap(), expected, "{body}");
        }
        for broken in [
            "",
            "x",
            "[1]",
            r#"{"model":"a","model":"b"}"#,
            r#"{"model":"a""#,
        ] {
            assert_eq!(
                routed(broken).unwrap_err().code(),
                tonic::Code::InvalidArgument,
                "{broken}"
            );
        }
    }
}
