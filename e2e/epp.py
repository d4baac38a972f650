#!/usr/bin/env python3
"""epp.py POINTSMAN ENVOY: the endpoint picker behind a real Envoy, in front of simulated servers.

Ends with `N passed, N failed`. Each check runs curl's part with the standard library; nothing else is needed.
"""
import http.client
import json
import pathlib
import sys
import tempfile
import time
import traceback

import envoy_config as envoy
from harness import World, free_port, get

COMPLETIONS = "/v1/completions"


def pool(ports, names=True):
    """The pool of these servers; `names`: with a model under another name."""
    endpoints = [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"sim-{port}", "namespace": "default", "labels": {"app": "sim"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
            "ports": [{"port": port}],
        }
        for port in ports
    ]
    pool = {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": "sim", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "sim"}},
            "targetPorts": [{"number": ports[0]}],
            "endpointPickerRef": {"name": "picker", "port": {"number": 9002}},
        },
    }
    rewrite = {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
        "kind": "InferenceModel",
        "metadata": {"name": "alias", "namespace": "default"},
        "spec": {"modelName": "alias", "criticality": "Critical", "poolRef": {"name": "sim"}, "targetModels": [{"name": "simulated", "weight": 1}]},
    }
    return "\n---\n".join(json.dumps(thing) for thing in [pool, *[rewrite][:names], *endpoints])


class Setup(World):
    """Servers, a picker and an Envoy."""

    def __init__(self, pointsman, envoy_path):
        super().__init__(pointsman, None)
        self.envoy_path = envoy_path
        self.folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))

    def servers(self, count):
        ports = [free_port() for _ in range(count)]
        for port in ports:
            self.start(f"sim-{port}", [self.binary, "sim", "--port", port], f"http://127.0.0.1:{port}/health")
        return ports

    def picker(self, ports, *flags, name="epp", grpc=None, names=True):
        """Its process, its port and its admin URL. Each name has a folder of its own."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "pool.yaml").write_text(pool(ports, names))
        grpc, health, admin = grpc or free_port(), free_port(), free_port()
        command = [self.binary, "epp", "-f", folder, f"--grpc-port={grpc}", f"--grpc-health-port={health}", f"--metrics-port={admin}", *flags]
        process = self.start(name, command, f"http://127.0.0.1:{admin}/readyz")
        return process, grpc, f"http://127.0.0.1:{admin}"

    def envoy(self, picker, ports, name="envoy", **options):
        listen, admin = free_port(), free_port()
        command = envoy.command(self.envoy_path, envoy.config(listen, admin, picker, ports, **options))
        self.start(name, command, f"http://127.0.0.1:{admin}/ready")
        return listen


def ask(port, body, path=COMPLETIONS, method="POST", headers=None):
    """Status, headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection.request(method, path, data, {"content-type": "application/json", **(headers or {})})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), text


def completion(prompt="hello", **fields):
    return {"model": "simulated", "prompt": prompt, "max_tokens": 8, **fields}


def each_mode(setup):
    """Plain and streamed answers, large bodies and GETs in every way that Envoy sends bodies."""
    ports = setup.servers(2)
    _, picker, admin = setup.picker(ports)
    for mode in envoy.MODES:
        port = setup.envoy(picker, ports, name=f"envoy-{mode}", mode=mode)
        status, headers, text = ask(port, completion())
        assert status == 200 and json.loads(text)["usage"]["completion_tokens"] == 8, (mode, status, text)
        assert "x-request-id" in headers, (mode, headers)
        status, _, text = ask(port, completion(stream=True))
        assert status == 200 and text.rstrip().endswith(b"data: [DONE]"), (mode, status, text[-200:])
        status, _, text = ask(port, None, "/v1/models", "GET")
        assert status == 200 and b"simulated" in text, (mode, status, text)
        status, _, text = ask(port, completion("word " * 1_000_000))
        # More tokens than the server takes, which it says when it has read all of it.
        assert status == 400 and b"context length" in text, (mode, status, text[:300])
    wait_idle(admin)


def wait_idle(admin, limit=10.0):
    """All charges go back."""
    end = time.time() + limit
    while time.time() < end:
        status = json.loads(get(admin + "/status")[1])
        flights = [server["in_flight"] for pool in status["pools"] for server in pool["endpoints"]]
        if not any(flights):
            return
        time.sleep(0.05)
    raise AssertionError(f"charges stay: {flights}")


def names_and_refusals(setup):
    """A model under another name is rewritten; what is refused is refused by the picker's own words."""
    ports = setup.servers(1)
    _, picker, _ = setup.picker(ports)
    for mode in ("duplex", "buffered"):
        port = setup.envoy(picker, ports, name=f"envoy-names-{mode}", mode=mode)
        status, _, text = ask(port, completion(model="alias"))
        assert status == 200 and json.loads(text)["model"] == "simulated", (mode, status, text)
        status, headers, text = ask(port, b"{", headers={"x-request-id": "mine"})
        assert status == 400 and json.loads(text)["error"]["code"], (mode, status, text)
        assert headers["x-request-id"] == "mine", headers


def subset(setup):
    """Only the servers that the proxy allows are picked, and none is 503."""
    ports = setup.servers(3)
    _, picker, admin = setup.picker(ports)
    port = setup.envoy(picker, ports, name="envoy-one", subset=[f"127.0.0.1:{ports[1]}"])
    for n in range(6):
        assert ask(port, completion(f"prompt {n}"))[0] == 200
    page = get(admin + "/metrics")[1]
    served = [line for line in page.splitlines() if line.startswith("pointsman_requests_total") and "endpoint=" in line]
    assert served and all(f":{ports[1]}\"" in line for line in served), served
    port = setup.envoy(picker, ports, name="envoy-none", subset=[])
    status, headers, _ = ask(port, completion())
    assert status == 503 and "retry-after" in headers, (status, headers)


def lost_server(setup):
    """A reload takes servers away while requests go on."""
    ports = setup.servers(2)
    _, picker, admin = setup.picker(ports, "--secure-serving=false")
    port = setup.envoy(picker, ports, tls=False)
    (setup.folder / "epp" / "pool.yaml").write_text(pool(ports[:1]))
    end = time.time() + 10
    while f":{ports[1]}" in get(admin + "/status")[1] and time.time() < end:
        time.sleep(0.05)
    for n in range(6):
        assert ask(port, completion(f"prompt {n}"))[0] == 200


def drain(setup):
    """A stream that runs when the picker is told to stop comes to its end."""
    ports = setup.servers(1)
    process, picker, _ = setup.picker(ports)
    port = setup.envoy(picker, ports)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", COMPLETIONS, json.dumps(completion(max_tokens=200, stream=True)), {"content-type": "application/json"})
    answer = connection.getresponse()
    answer.readline()
    process.child.terminate()
    text = answer.read()
    assert text.rstrip().endswith(b"data: [DONE]"), text[-200:]
    assert process.child.wait(10) == 0


def body_routing(setup):
    """The model of the body chooses the route before the picker is asked."""
    ports = setup.servers(1)
    _, picker, _ = setup.picker(ports)
    _, router, admin = setup.picker(ports, "--bbr", name="bbr")
    port = setup.envoy(picker, ports, body_router=router)
    assert ask(port, completion())[0] == 200
    # Without a model there is no route, but the picker is asked before that is seen.
    assert ask(port, {"prompt": "no model"})[0] == 400
    page = get(admin + "/metrics")[1]
    assert "bbr_success_total 1" in page and "bbr_model_not_in_body_total 1" in page, page


CHECKS = [each_mode, names_and_refusals, subset, lost_server, drain, body_routing]


def main():
    pointsman, path = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else envoy.binary()
    if path is None:
        print("there is no Envoy here")
        return 77
    failed = 0
    for check in CHECKS:
        try:
            with Setup(pointsman, path) as setup:
                check(setup)
            print(f"ok    {check.__name__}: {check.__doc__}", flush=True)
        except Exception:  # noqa: BLE001  (every failure is told, and counted)
            failed += 1
            print(f"FAILED {check.__name__}\n{traceback.format_exc()}", flush=True)
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
