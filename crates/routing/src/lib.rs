//! Objects in, a plan and conditions out: compiles Gateway API and inference objects and routes requests.
//!
//! Compiling is pure: it knows neither where the objects came from nor what is done with the outcome. The plan it makes
//! is a value; [`Plan::route`] then finds the rule for a request.

mod compile;
mod hostname;
mod models;
mod plan;
mod request;
mod rewrite;
mod status;
mod urls;
mod weighted;

pub use compile::{
    CONTROLLER_NAME, CompileOptions, Compiled, GatewayPlan, Mode, ObjectStatus, compile,
    compile_pools,
};
pub use models::{CRITICAL, ModelTable, ModelTarget, Resolution, SHEDDABLE, STANDARD};
pub use plan::*;
pub use request::{Matched, NoMatch, RequestHead};
pub use rewrite::rewrite_path;
pub use status::{Condition, ConditionStatus, Note, ParentKey, RouteKind};
pub use urls::{BaseUrl, plan_for_urls};
