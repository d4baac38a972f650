"""Envoy in front of an endpoint picker: its configuration for each way of sending bodies, and its process.

`config` is what gateways built on Envoy write: an ext_proc filter that asks the picker, and a pool whose servers are
chosen by what the picker puts into metadata `envoy.lb` and the header of the same name.
"""
import json
import shutil
import sys
import tempfile

DESTINATION = "x-gateway-destination-endpoint"
EXTENSION = "type.googleapis.com/envoy.extensions."

# How a mode sends bodies: (request body, answer's body).
MODES = {
    "duplex": ("FULL_DUPLEX_STREAMED", "FULL_DUPLEX_STREAMED"),
    "duplex-request": ("FULL_DUPLEX_STREAMED", "NONE"),
    "buffered": ("BUFFERED", "NONE"),
    "buffered-streamed": ("BUFFERED", "STREAMED"),
    "streamed": ("STREAMED", "STREAMED"),
    "heads": ("NONE", "NONE"),
}


def typed(name, **fields):
    return {"@type": EXTENSION + name, **fields}


def at(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def load_assignment(name, ports):
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(port)}} for port in ports]}]}


def processing_mode(mode):
    request, answer = MODES[mode]
    # Full duplex wants the trailers of the same direction.
    trailers = {True: "SEND", False: "SKIP"}
    return {
        "request_header_mode": "SEND",
        "response_header_mode": "SEND",
        "request_body_mode": request,
        "response_body_mode": answer,
        "request_trailer_mode": trailers[request == "FULL_DUPLEX_STREAMED"],
        "response_trailer_mode": trailers[answer == "FULL_DUPLEX_STREAMED"],
    }


def ext_proc(name, cluster, mode, allow=False):
    """The filter that asks a processor; `allow`: requests go on where it fails, as far as Envoy can do that."""
    return {
        "name": name,
        "typed_config": typed(
            "filters.http.ext_proc.v3.ExternalProcessor",
            grpc_service={"envoy_grpc": {"cluster_name": cluster}, "timeout": "60s"},
            # The default, 0.2 s, is too short for a picker that lets requests wait.
            message_timeout="60s",
            failure_mode_allow=allow,
            processing_mode=processing_mode(mode),
            metadata_options={
                "forwarding_namespaces": {"untyped": ["envoy.lb", "envoy.lb.subset_hint"]},
                "receiving_namespaces": {"untyped": ["envoy.lb"]},
            },
        ),
    }


def subset_filter(entries):
    """Writes the subset hint, a list or a text, as a gateway does that has narrowed the choice."""
    return {
        "name": "subset",
        "typed_config": typed(
            "filters.http.set_metadata.v3.Config",
            metadata=[
                {
                    "metadata_namespace": "envoy.lb.subset_hint",
                    "value": {"x-gateway-destination-endpoint-subset": entries},
                    "allow_overwrite": True,
                }
            ],
        ),
    }


def policy(name, **config):
    kind = "".join(word.title() for word in name.split("_"))
    extension = {"name": f"envoy.load_balancing_policies.{name}", "typed_config": typed(f"load_balancing_policies.{name}.v3.{kind}", **config)}
    return {"policies": [{"typed_extension_config": extension}]}


def breakers(raised):
    """Envoy lets 1,024 requests at once go to a cluster, and as many wait, unless it is told otherwise."""
    most = {key: 1_000_000 for key in ("max_connections", "max_pending_requests", "max_requests", "max_retries")}
    return {"circuit_breakers": {"thresholds": [most]}} if raised else {}


def pool_cluster(name, ports, raised=True):
    """Servers that the picker's metadata chooses among, else its header, else round robin."""
    metadata = {"key": "envoy.lb", "path": [{"key": DESTINATION}]}
    return breakers(raised) | {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "per_connection_buffer_limit_bytes": 8 << 20,
        "load_assignment": load_assignment(name, ports),
        "load_balancing_policy": policy(
            "override_host",
            override_host_sources=[{"metadata": metadata}, {"header": DESTINATION}],
            selected_host_key={"key": "envoy.lb", "path": [{"key": DESTINATION + "-served"}]},
            fallback_policy=policy("round_robin"),
        ),
    }


def original_destination_cluster(name, raised=True):
    """Whatever address the picker's header says: the proxy knows no servers."""
    return breakers(raised) | {
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "2s",
        "per_connection_buffer_limit_bytes": 8 << 20,
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": DESTINATION},
    }


def processor_cluster(name, port, tls, raised=True):
    cluster = breakers(raised) | {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": load_assignment(name, [port]),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "upstreams.http.v3.HttpProtocolOptions",
                # Envoy resets each stream to the picker at its end, and drops a connection with over 1,000 resets in one pass.
                explicit_http_config={"http2_protocol_options": {"max_concurrent_streams": 900}},
            )
        },
    }
    if tls:
        # Pickers make their own certificates: encrypted, not verified.
        context = typed("transport_sockets.tls.v3.UpstreamTlsContext", common_tls_context={"alpn_protocols": ["h2"]})
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    return cluster


def weighted(pools):
    """A route over several pools, each with a picker of its own: [(weight, picker's port, servers' ports)]."""
    parts = []
    for i, (weight, _, _) in enumerate(pools):
        asked = {"envoy_grpc": {"cluster_name": f"picker-{i}"}, "timeout": "60s"}
        override = typed("filters.http.ext_proc.v3.ExtProcPerRoute", overrides={"grpc_service": asked})
        parts.append({"name": f"pool-{i}", "weight": weight, "typed_per_filter_config": {"picker": override}})
    return {"weighted_clusters": {"clusters": parts}, "timeout": "0s"}


def config(
    listen,
    admin,
    picker,
    servers,
    mode="duplex",
    tls=True,
    subset=None,
    body_router=None,
    allow=False,
    raised=True,
    original=False,
    retries=0,
    pools=(),
):
    """Everything on loopback. `picker`, `body_router` and `servers` are ports; `subset` narrows the choice; `raised`
    lifts the circuit breakers; `original` takes servers from the picker's header alone; `retries` after failures to
    connect; `pools` as in `weighted`."""
    pool = original_destination_cluster("pool", raised) if original else pool_cluster("pool", servers, raised)
    filters, clusters = [], [pool, processor_cluster("picker", picker, tls, raised)]
    for i, (_, port, ports) in enumerate(pools):
        clusters += [pool_cluster(f"pool-{i}", ports, raised), processor_cluster(f"picker-{i}", port, tls, raised)]
    route = weighted(pools) if pools else {"cluster": "pool", "timeout": "0s"}
    if retries:
        route["retry_policy"] = {"retry_on": "connect-failure", "num_retries": retries}
    routes = [{"match": {"prefix": "/"}, "route": route}]
    if body_router:
        filters.append(ext_proc("body-router", "body-router", "duplex-request"))
        clusters.append(processor_cluster("body-router", body_router, tls))
        # Only a request whose model was told gets anywhere.
        told = [{"name": "x-gateway-model-name", "present_match": True}]
        routes[0]["match"]["headers"] = told
    if subset is not None:
        filters.append(subset_filter(subset))
    filters.append(ext_proc("picker", "picker", mode, allow))
    filters.append({"name": "envoy.filters.http.router", "typed_config": typed("filters.http.router.v3.Router")})
    manager = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="in",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        http_filters=filters,
    )
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    listener = {"name": "in", "address": at(listen), "filter_chains": [chain], "per_connection_buffer_limit_bytes": 8 << 20}
    return {"admin": {"address": at(admin)}, "static_resources": {"listeners": [listener], "clusters": clusters}}


def binary():
    """Envoy of the virtual environment that runs this, else of the path; `None`: there is none."""
    try:
        import envoy as package  # noqa: PLC0415
    except ImportError:
        package = None
    if package is not None and hasattr(package, "__path__"):
        return f"{list(package.__path__)[0]}/_bin/envoy"
    return shutil.which("envoy")


def command(path, settings):
    """The command line that runs Envoy with these settings."""
    file = tempfile.NamedTemporaryFile("w", suffix=".json", delete=False)
    with file:
        json.dump(settings, file)
    return [path, "-c", file.name, "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]


if __name__ == "__main__":
    mode, listen, admin, picker, *servers = sys.argv[1:]
    json.dump(config(int(listen), int(admin), int(picker), [int(s) for s in servers], mode), sys.stdout, indent=1)
