//! What compiling a large cluster costs: time and memory, by size.
//!
//! ```text
//! cargo bench -p routing --bench compile
//! cargo bench -p routing --bench compile -- 4000    so many pools
//! ```
//!
//! Each pool has twenty routes with a hostname of their own and five Pods. All are in one namespace and behind one
//! Gateway, which is the hardest way to have them: nothing is told apart by its namespace. Time is the median of several
//! compilations; memory is by how much what the process has resident (`VmRSS`) grows, in a process for each size.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use api::Objects;
use routing::{CompileOptions, Compiled, Mode, compile};

const ROUTES_OF_POOL: usize = 20;
const PODS_OF_POOL: usize = 5;
const TIMES: usize = 7;
const SIZES: [usize; 4] = [250, 500, 1000, 2000];

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ours}
spec: {controllerName: pointsman.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: models}
spec:
  gatewayClassName: ours
  listeners: [{name: web, port: 80, protocol: HTTP}]
";

/// A pool, its routes and its Pods.
fn pool(number: usize) -> String {
    let mut text = format!(
        "
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: pool-{number}, namespace: models}}
spec: {{selector: {{matchLabels: {{app: server, pool: p{number}}}}}, targetPorts: [{{number: 8000}}]}}
"
    );
    for route in 0..ROUTES_OF_POOL {
        let _ = write!(
            text,
            "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: route-{number}-{route}, namespace: models, generation: 1}}
spec:
  parentRefs: [{{name: web}}]
  hostnames: [r{route}.p{number}.example.com]
  rules:
  - matches: [{{path: {{type: PathPrefix, value: /v1/}}}}]
    backendRefs: [{{group: inference.networking.k8s.io, kind: InferencePool, name: pool-{number}}}]
"
        );
    }
    for pod in number * PODS_OF_POOL..(number + 1) * PODS_OF_POOL {
        let (high, low) = (pod / 250, pod % 250);
        let _ = write!(
            text,
            "---
apiVersion: v1
kind: Pod
metadata: {{name: server-{pod}, namespace: models, labels: {{app: server, pool: p{number}, pod-template-hash: abcdef}}}}
status:
  podIP: 10.1.{high}.{low}
  conditions: [{{type: Ready, status: \"True\"}}]
"
        );
    }
    text
}

fn cluster(pools: usize) -> Objects {
    let texts = std::iter::once(GATEWAY.to_owned()).chain((0..pools).map(pool));
    let documents = texts.flat_map(|text| api::decode_yaml(&text));
    documents
        .map(|document| document.result.expect("a good object"))
        .collect()
}

/// Resident memory in MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

fn timed(objects: &Objects, options: &CompileOptions) -> (Duration, Compiled) {
    let begun = Instant::now();
    let compiled = compile(black_box(objects), options);
    (begun.elapsed(), compiled)
}

/// One line of the table.
fn measure(pools: usize) {
    let options = CompileOptions {
        mode: Mode::Cluster,
        ..CompileOptions::default()
    };
    let empty = resident();
    let objects = cluster(pools);
    let with_objects = resident();
    let (first, compiled) = timed(&objects, &options);
    let with_plan = resident();
    check(&compiled, pools);
    let mut times = vec![first];
    times.extend((1..TIMES).map(|_| timed(&objects, &options).0));
    times.sort_unstable();
    println!(
        "{pools:>6} {:>7} {:>6} {:>9.0} ms {:>9.0} MiB {:>9.0} MiB",
        pools * ROUTES_OF_POOL,
        pools * PODS_OF_POOL,
        times[TIMES / 2].as_secs_f64() * 1e3,
        with_objects - empty,
        with_plan - with_objects,
    );
}

/// A plan that lacks something would be compiled fast, and mean nothing.
fn check(compiled: &Compiled, pools: usize) {
    let rules: usize = compiled.plan.ports[&80]
        .listeners
        .iter()
        .map(|one| one.rules.len())
        .sum();
    let servers: usize = compiled
        .plan
        .pools
        .values()
        .map(|pool| pool.endpoints.len())
        .sum();
    assert_eq!(
        (rules, servers),
        (pools * ROUTES_OF_POOL, pools * PODS_OF_POOL)
    );
}

fn main() -> std::io::Result<()> {
    let asked: Vec<_> = std::env::args()
        .filter_map(|one| one.parse().ok())
        .collect();
    if let [pools] = asked[..] {
        measure(pools);
        return Ok(());
    }
    println!(
        "{:>6} {:>7} {:>6} {:>12} {:>13} {:>13}",
        "pools", "routes", "Pods", "compile", "objects", "plan"
    );
    // A process for each size: what one has given back would count as nothing in the next.
    for pools in SIZES {
        std::process::Command::new(std::env::current_exe()?)
            .arg(pools.to_string())
            .status()?;
    }
    Ok(())
}
