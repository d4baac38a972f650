//! One Envoy with a listener for each picker, so that both are asked by the same process in the same way.

use serde_json::{Value, json};

const DESTINATION: &str = "x-gateway-destination-endpoint";
const EXTENSION: &str = "type.googleapis.com/envoy.extensions.";
/// Buffers of connections.
const BUFFER: u32 = 8 << 20;

/// A listener and the picker that it asks, by ports of 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Where requests come in.
    pub listen: u16,
    /// The picker.
    pub picker: u16,
}

/// The configuration: both bodies full duplex, as gateways of the inference extension ask; the server from the picker's
/// metadata; circuit breakers out of the way.
#[must_use]
pub fn config(admin: u16, ways: &[Way], servers: &[u16]) -> Value {
    let listeners: Vec<Value> = (ways.iter().enumerate())
        .map(|(i, way)| listener(i, *way))
        .collect();
    let pickers = (ways.iter().enumerate()).map(|(i, way)| picker(i, *way));
    let clusters: Vec<Value> = std::iter::once(pool(servers)).chain(pickers).collect();
    json!({
        "admin": {"address": address(admin)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    })
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn typed(name: &str, mut fields: Value) -> Value {
    fields["@type"] = format!("{EXTENSION}{name}").into();
    fields
}

fn assignment(name: &str, ports: &[u16]) -> Value {
    let endpoints: Vec<Value> = (ports.iter())
        .map(|port| json!({"endpoint": {"address": address(*port)}}))
        .collect();
    json!({"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]})
}

fn no_limits() -> Value {
    let most = 1_000_000;
    json!({"thresholds": [{"max_connections": most, "max_pending_requests": most, "max_requests": most}]})
}

fn pool(servers: &[u16]) -> Value {
    let fallback = typed(
        "load_balancing_policies.round_robin.v3.RoundRobin",
        json!({}),
    );
    let policy = |name: &str, config: Value| json!({"policies": [{"typed_extension_config": {"name": name, "typed_config": config}}]});
    let chosen = typed(
        "load_balancing_policies.override_host.v3.OverrideHost",
        json!({
            "override_host_sources": [{"metadata": {"key": "envoy.lb", "path": [{"key": DESTINATION}]}}],
            "selected_host_key": {"key": "envoy.lb", "path": [{"key": format!("{DESTINATION}-served")}]},
            "fallback_policy": policy("envoy.load_balancing_policies.round_robin", fallback),
        }),
    );
    json!({
        "name": "pool",
        "type": "STATIC",
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": BUFFER,
        "circuit_breakers": no_limits(),
        "load_assignment": assignment("pool", servers),
        "load_balancing_policy": policy("envoy.load_balancing_policies.override_host", chosen),
    })
}

fn picker(number: usize, way: Way) -> Value {
    let name = format!("picker-{number}");
    let options = typed(
        "upstreams.http.v3.HttpProtocolOptions",
        json!({"explicit_http_config": {"http2_protocol_options": {}}}),
    );
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": no_limits(),
        "load_assignment": assignment(&name, &[way.picker]),
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    })
}

fn listener(number: usize, way: Way) -> Value {
    let ask = typed(
        "filters.http.ext_proc.v3.ExternalProcessor",
        json!({
            "grpc_service": {"envoy_grpc": {"cluster_name": format!("picker-{number}")}, "timeout": "60s"},
            "message_timeout": "60s",
            "processing_mode": {
                "request_header_mode": "SEND",
                "response_header_mode": "SEND",
                "request_body_mode": "FULL_DUPLEX_STREAMED",
                "response_body_mode": "FULL_DUPLEX_STREAMED",
                "request_trailer_mode": "SEND",
                "response_trailer_mode": "SEND",
            },
            "metadata_options": {
                "forwarding_namespaces": {"untyped": ["envoy.lb", "envoy.lb.subset_hint"]},
                "receiving_namespaces": {"untyped": ["envoy.lb"]},
            },
        }),
    );
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "pool", "timeout": "0s"}});
    let manager = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": format!("way-{number}"),
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            "http_filters": [
                {"name": "picker", "typed_config": ask},
                {"name": "envoy.filters.http.router", "typed_config": typed("filters.http.router.v3.Router", json!({}))},
            ],
        }),
    );
    let filter =
        json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager});
    json!({
        "name": format!("way-{number}"),
        "address": address(way.listen),
        "per_connection_buffer_limit_bytes": BUFFER,
        "filter_chains": [{"filters": [filter]}],
    })
}
