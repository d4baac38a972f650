//! Objects in, a plan and conditions out: compiles Gateway API and inference objects and routes requests.
//!
//! Compiling is pure: it knows neither where the objects came from nor what is done with the outcome. The plan it makes
//! is a value; [`Plan::route`] then finds the rule for a request.
//!
//! ```
//! let text = "
//! apiVersion: inference.networking.k8s.io/v1
//! kind: InferencePool
//! metadata: {name: llama, namespace: default}
//! spec: {selector: {matchLabels: {app: llama}}, targetPorts: [{number: 8000}]}
//! ";
//! let objects: api::Objects = api::decode_yaml(text).into_iter().filter_map(|document| document.result.ok()).collect();
//! let compiled = routing::compile(&objects, &routing::CompileOptions::default());
//! assert_eq!(compiled.plan.pools.len(), 1);
//!
//! let headers = http::HeaderMap::new();
//! let head = routing::RequestHead {
//!     method: &http::Method::GET, host: "example.com", path: "/v1/models", query: None, headers: &headers, sni: None,
//! };
//! let matched = compiled.plan.route(8080, &head).expect("the port that stands in for a Gateway");
//! assert!(matched.rule.choose(0.5).is_some());
//! ```

mod compile;
mod cors;
mod hostname;
mod models;
mod plan;
mod request;
mod rewrite;
mod status;
mod urls;
mod weighted;

pub use compile::{
    CONTROLLER_NAME, CompileOptions, Compiled, GatewayPlan, Mode, ObjectStatus, ParameterRefs,
    SUPPORTED_FEATURES, compile, compile_pools,
};
pub use cors::{Allowed, Cors, OriginMatch};
pub use models::{CRITICAL, ModelTable, ModelTarget, Resolution, SHEDDABLE, STANDARD};
pub use plan::*;
pub use request::{Matched, NoMatch, RequestHead};
pub use rewrite::rewrite_path;
pub use status::{Condition, ConditionStatus, Note, ParentKey, RouteKind};
pub use urls::{BaseUrl, plan_for_urls};
