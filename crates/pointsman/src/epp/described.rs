//! A pool that flags describe, without an object: `--endpoint-selector` and `--endpoint-target-ports`.
//!
//! It stands in the place of an InferencePool among the objects that are read, so all else is as with one.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use api::InferencePool;
use api::inference::{InferencePoolSpec, PoolPort, PoolSelector};
use routing::{PoolKey, PoolKind};

use super::args::{EppArgs, GROUP};
use super::source::namespace;

/// Most ports of a pool, as the InferencePool's own rule says.
const MOST_PORTS: usize = 8;

/// The pool that the flags describe, if they do.
///
/// # Errors
/// Flags that cannot be read, or do not go together.
pub(super) fn described(args: &EppArgs) -> anyhow::Result<Option<InferencePool>> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (selector, ports) = (
        given(&args.endpoint_selector),
        given(&args.endpoint_target_ports),
    );
    let Some(selector) = selector else {
        ensure!(
            ports.is_none(),
            "--endpoint-target-ports needs --endpoint-selector"
        );
        return Ok(None);
    };
    if args.pool_name.is_some() {
        bail!("--pool-name and --endpoint-selector exclude each other");
    }
    let ports = ports.context("--endpoint-selector needs --endpoint-target-ports")?;
    let match_labels = labels(&selector).context("--endpoint-selector")?;
    let pod = std::env::var("POD_NAME").unwrap_or_default();
    Ok(Some(InferencePool {
        api_version: format!("{GROUP}/v1"),
        meta: api::Meta::named(
            namespace(args).unwrap_or_else(|| "default".to_owned()),
            name(&pod),
        ),
        spec: InferencePoolSpec {
            selector: PoolSelector { match_labels },
            target_ports: target_ports(&ports).context("--endpoint-target-ports")?,
            app_protocol: api::inference::AppProtocol::default(),
            endpoint_picker_ref: None,
        },
        status: None,
    }))
}

/// The key of a pool that flags describe.
pub(super) fn key(pool: &InferencePool) -> PoolKey {
    PoolKey {
        kind: PoolKind::Inference,
        namespace: pool.meta.namespace.clone(),
        name: pool.meta.name.clone(),
    }
}

/// Such a pool has the name of the Deployment that the picker's own Pod is of: that without the two last parts.
fn name(pod: &str) -> String {
    let deployment = pod.rsplitn(3, '-').nth(2);
    deployment
        .filter(|name| !name.is_empty())
        .unwrap_or("endpoints")
        .to_owned()
}

/// `key=value,...`.
fn labels(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for pair in text.split(',').map(str::trim) {
        let (key, value) = pair
            .split_once('=')
            .filter(|(key, value)| !key.trim().is_empty() && !value.contains('='))
            .with_context(|| format!("{pair:?} is not LABEL=VALUE"))?;
        let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
        ensure!(
            labels.insert(key, value).is_none(),
            "{pair:?}: this label was given before"
        );
    }
    Ok(labels)
}

/// `8000,8001`.
fn target_ports(text: &str) -> anyhow::Result<Vec<PoolPort>> {
    let mut ports = Vec::new();
    for part in text.split(',').map(str::trim) {
        let number = part.parse().ok().filter(|port: &u16| *port > 0);
        let number = number.with_context(|| format!("{part:?} is not a port"))?;
        let port = PoolPort { number };
        ensure!(!ports.contains(&port), "{part} was given before");
        ports.push(port);
    }
    ensure!(
        ports.len() <= MOST_PORTS,
        "more than {MOST_PORTS} ports were given"
    );
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_ports_are_read_or_refused() {
        let read = labels("app=vllm, env=prod").unwrap();
        let pairs: Vec<_> = read.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("app", "vllm"), ("env", "prod")]);
        assert_eq!(labels("app=").unwrap()["app"], "");
        for bad in ["app", "=x", "a=b,", "a==b", "a!=b=c", "a=b,a=c", ","] {
            assert!(labels(bad).is_err(), "{bad}");
        }
        let ports = target_ports("8000, 8001").unwrap();
        let numbers: Vec<u16> = ports.iter().map(|port| port.number).collect();
        assert_eq!(numbers, [8000, 8001]);
        for bad in ["0", "x", "", "65536", "1,1", "1,2,3,4,5,6,7,8,9", "8000,"] {
            assert!(target_ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_pool_is_named_by_the_deployment() {
        for (pod, expected) in [
            ("llama-epp-7c9f8d6b5-x2x4z", "llama-epp"),
            ("epp-abc-def", "epp"),
            ("alone", "endpoints"),
            ("two-parts", "endpoints"),
            ("", "endpoints"),
        ] {
            assert_eq!(name(pod), expected, "{pod}");
        }
    }
}
