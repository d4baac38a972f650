//! Pools whose picker is outside: asking it, following it, and doing without it.

mod asking;
#[path = "../common/mod.rs"]
mod common;
mod failing;

use std::sync::Arc;

use common::picker::Picker;
use common::{Gateway, Server};
use proxy::ProxyOptions;
use routing::{EndpointSpec, Host, PickerTls, PoolKind, PoolSpec};

fn replica(picker: &Picker) -> EndpointSpec {
    EndpointSpec {
        host: Host::Ip(picker.address.ip()),
        port: picker.address.port(),
        name: picker.address.to_string(),
        ready: true,
        labels: Arc::default(),
        base_path: None,
    }
}

fn external(fail_open: bool, endpoints: Vec<EndpointSpec>, tls: PickerTls) -> routing::Picker {
    routing::Picker::External {
        service: "default/picker".into(),
        port: 9002,
        fail_open,
        endpoints,
        tls,
    }
}

/// A pool of these servers with this picker.
fn pool(servers: &[&Server], picker: routing::Picker) -> PoolSpec {
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    PoolSpec {
        picker,
        ..common::pool(PoolKind::Inference, &addresses)
    }
}

async fn gateway(servers: &[&Server], picker: routing::Picker) -> Gateway {
    gateway_with(servers, picker, |_| {}).await
}

async fn gateway_with(
    servers: &[&Server],
    picker: routing::Picker,
    change: impl FnOnce(&mut ProxyOptions),
) -> Gateway {
    let mut options = common::options();
    change(&mut options);
    let rule = common::rule(PoolKind::Inference);
    Gateway::serve(
        options,
        common::plan(vec![rule], pool(servers, picker), false),
    )
    .await
}

async fn asks(servers: &[&Server], picker: &Picker, fail_open: bool) -> Gateway {
    let picker = external(fail_open, vec![replica(picker)], PickerTls::Plaintext);
    gateway(servers, picker).await
}

/// Two servers that say who they are.
async fn two() -> (Server, Server) {
    (
        Server::fixed(200, "application/json", r#"{"from":"a"}"#).await,
        Server::fixed(200, "application/json", r#"{"from":"b"}"#).await,
    )
}

fn metric(gateway: &Gateway, name: &str, label: &str) -> f64 {
    let page = gateway.metrics.encode_text();
    let found = page
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(label));
    found
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}
