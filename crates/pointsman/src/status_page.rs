//! The status page: pools, servers and recent decisions, drawn from `/status` every second.

use serde::Serialize;

use crate::admin::Admin;

/// The page: no script or style from elsewhere.
pub(crate) const PAGE: &str = include_str!("../assets/status.html");

/// Everything the page shows.
#[derive(Serialize)]
pub(crate) struct Status {
    version: &'static str,
    problems: Vec<String>,
    pools: Vec<PoolStatus>,
}

#[derive(Serialize)]
struct PoolStatus {
    name: String,
    endpoints: Vec<fleet::EndpointStatus>,
    decisions: Vec<fleet::RecordedDecision>,
}

/// What the page shows now: all pools, and of each the newest 20 decisions.
pub(crate) fn status(admin: &Admin) -> Status {
    let pools = admin.fleet.pools();
    Status {
        version: env!("CARGO_PKG_VERSION"),
        problems: admin.readiness.lock().problems.clone(),
        pools: pools.iter().map(|pool| pool_status(pool)).collect(),
    }
}

fn pool_status(pool: &fleet::Pool) -> PoolStatus {
    let mut decisions = pool.recent_decisions();
    decisions.truncate(20);
    PoolStatus {
        name: pool.spec().key.to_string(),
        endpoints: pool.endpoints(),
        decisions,
    }
}
