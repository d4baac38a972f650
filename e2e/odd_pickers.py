#!/usr/bin/env python3
"""odd_pickers.py POINTSMAN [NAME]: `serve` asks pickers that do everything a picker can do, well and badly.

The pickers are of another implementation of gRPC and protobuf than ours: grpcio, and types that its own compiler makes of
our .proto files at the start. Ends with `N passed, N failed`.
"""
import concurrent.futures
import hashlib
import importlib
import json
import os
import pathlib
import signal
import sys
import tempfile
import time
import traceback

import grpc
from google.protobuf import struct_pb2
from grpc_tools import protoc

from behind_envoy import Weather
from epp import ask, completion
from harness import HERE, free_port, get

PROTO = HERE.parent / "crates/extproc/proto"
DESTINATION = "x-gateway-destination-endpoint"
METHOD = ("envoy.service.ext_proc.v3.ExternalProcessor", "Process")


def generate(folder):
    """The protocol's types."""
    files = [str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto") if "grpc" not in path.parts]
    well_known = pathlib.Path(protoc.__file__).parent / "_proto"
    code = protoc.main(["protoc", f"-I{PROTO}", f"-I{well_known}", f"--python_out={folder}", *files])
    assert code == 0, "the .proto files do not compile"
    # Envoy's wheel has a package of the same name; one with this file is found first.
    (pathlib.Path(folder) / "envoy" / "__init__.py").touch()
    sys.path.insert(0, str(folder))
    return importlib.import_module("envoy.service.ext_proc.v3.external_processor_pb2")


class Call:
    """One call, for a script that yields replies."""

    def __init__(self, pb, incoming, context):
        self.pb, self.incoming, self.context = pb, incoming, context

    def request(self):
        """Reads to the end of the request; its body."""
        body = b""
        for message in self.incoming:
            which = message.WhichOneof("request")
            if which == "request_body":
                body += message.request_body.body
            if which == "request_trailers" or getattr(message, which).end_of_stream:
                break
        return body

    def head(self, header=None, metadata=None, fields=()):
        """The reply to the head."""
        reply = self.pb.ProcessingResponse()
        common = reply.request_headers.response
        common.SetInParent()
        wanted = [(DESTINATION, header)] if header is not None else []
        for name, value in [*wanted, *fields]:
            option = common.header_mutation.set_headers.add()
            option.header.key, option.header.raw_value = name, value.encode()
        if metadata is not None:
            inner = struct_pb2.Struct(fields={DESTINATION: struct_pb2.Value(string_value=metadata)})
            reply.dynamic_metadata.fields["envoy.lb"].struct_value.CopyFrom(inner)
        return reply

    def body(self, body, kind="request_body", last=True):
        """The request's body, or the answer's, in pieces."""
        pieces = [body[i : i + 62_000] for i in range(0, len(body), 62_000)] or [b""]
        for i, piece in enumerate(pieces):
            reply = self.pb.ProcessingResponse()
            streamed = getattr(reply, kind).response.body_mutation.streamed_response
            streamed.body, streamed.end_of_stream = piece, last and i == len(pieces) - 1
            streamed.SetInParent()
            yield reply

    def pick(self, to, **fields):
        """The whole request phase: to these servers, the body as it was."""
        body = self.request()
        yield self.head(**{"header": to, "metadata": to, **fields})
        yield from self.body(body)

    def answer(self, fields=(), change=lambda piece: piece):
        """The whole answer phase."""
        for message in self.incoming:
            which = message.WhichOneof("request")
            reply = self.pb.ProcessingResponse()
            if which == "response_headers":
                reply.response_headers.response.SetInParent()
                for name, value in fields:
                    option = reply.response_headers.response.header_mutation.set_headers.add()
                    option.header.key, option.header.raw_value = name, value.encode()
                yield reply
                if message.response_headers.end_of_stream:
                    return
            elif which == "response_body":
                piece = message.response_body
                yield from self.body(change(piece.body), "response_body", piece.end_of_stream)
                if piece.end_of_stream:
                    return
            else:
                reply.response_trailers.SetInParent()
                yield reply
                return

    def immediate(self, status, text=b"", fields=()):
        reply = self.pb.ProcessingResponse()
        reply.immediate_response.status.code = status
        reply.immediate_response.body = text
        for name, value in fields:
            option = reply.immediate_response.headers.set_headers.add()
            option.header.key, option.header.raw_value = name, value.encode()
        return reply


class Server:
    """A picker on a port of its own; `script` is what it does with a call."""

    def __init__(self, pb):
        self.pb, self.script, self.port = pb, None, free_port()
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(16), options=[("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)])
        handler = grpc.stream_stream_rpc_method_handler(
            self.process,
            request_deserializer=pb.ProcessingRequest.FromString,
            response_serializer=lambda reply: reply if isinstance(reply, bytes) else reply.SerializeToString(),
        )
        self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(METHOD[0], {METHOD[1]: handler})])
        assert self.server.add_insecure_port(f"127.0.0.1:{self.port}") == self.port
        self.server.start()

    def process(self, incoming, context):
        yield from self.script(Call(self.pb, incoming, context))


OBJECTS = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw, namespace: default}}
spec:
  gatewayClassName: pointsman
  listeners: [{{name: http, port: {listen}, protocol: HTTP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: llm, namespace: default}}
spec:
  parentRefs: [{{name: gw}}]
  rules: [{{backendRefs: [{{group: inference.networking.k8s.io, kind: InferencePool, name: pool}}]}}]
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: pool, namespace: default}}
spec:
  selector: {{matchLabels: {{app: server}}}}
  targetPorts: [{{number: 8000}}]
  endpointPickerRef: {{name: picker, port: {{number: 9002}}, failureMode: {mode}}}
---
apiVersion: v1
kind: Service
metadata: {{name: picker, namespace: default}}
spec: {{ports: [{{port: 9002, appProtocol: kubernetes.io/h2c}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: picker-0, namespace: default, labels: {{kubernetes.io/service-name: picker}}}}
addressType: IPv4
ports: [{{port: {picker}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
"""
SERVER = """\
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: server-{port}, namespace: default, labels: {{app: server}}}}
addressType: IPv4
ports: [{{port: {port}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
"""


class Gateways:
    """A gateway for each failure mode, with the same servers and the same picker."""

    def __init__(self, world, picker_port, flags=("--picker-timeout=3s", "--picker-idle-timeout=3s")):
        self.ports = world.obedient(2)
        self.servers = [f"127.0.0.1:{port}" for port in self.ports]
        self.dead = f"127.0.0.1:{free_port()}"
        dead = int(self.dead.rsplit(":", 1)[1])
        self.listen, self.admin = {}, {}
        for mode in ("FailOpen", "FailClose"):
            folder = world.folder / mode
            folder.mkdir()
            self.listen[mode] = free_port()
            slices = "".join(SERVER.format(port=port) for port in [*self.ports, dead])
            (folder / "all.yaml").write_text(OBJECTS.format(listen=self.listen[mode], mode=mode, picker=picker_port) + slices)
            _, _, self.admin[mode] = world.gateway("-f", folder, *flags, name=f"gateway-{mode}")

    def ask(self, mode, size=200_000, **fields):
        """Status, fields, the answer; that the body arrived as it was is checked wherever a server answered."""
        body = json.dumps(completion("x" * size, **fields)).encode()
        status, head, text = ask(self.listen[mode], body)
        if status == 200 and text.startswith(b'{"port"'):
            assert json.loads(text)["sha256"] == hashlib.sha256(body).hexdigest(), "another body arrived"
        return status, {name.lower(): value for name, value in head.items()}, text


def failing(gateways, code=None):
    """With FailOpen nobody notices; with FailClose it is a 503 that says why."""
    status, _, text = gateways.ask("FailOpen")
    assert status == 200, ("FailOpen", status, text[:300])
    status, _, text = gateways.ask("FailClose")
    assert status == 503 and json.loads(text)["error"]["code"].startswith("picker_"), ("FailClose", status, text[:300])
    assert code is None or json.loads(text)["error"]["code"] == code, text


def going_to(gateways, server):
    for mode in gateways.listen:
        for size in (10, 200_000):
            status, _, text = gateways.ask(mode, size)
            assert status == 200 and json.loads(text)["port"] == gateways.ports[server], (mode, status, text[:300])


def header_only(gateways, picker):
    """The pick is in the header alone."""
    picker.script = lambda call: (yield from chain(call.pick(gateways.servers[1], metadata=None), call.answer()))
    going_to(gateways, 1)


def metadata_only(gateways, picker):
    """The pick is in the metadata alone."""
    picker.script = lambda call: (yield from chain(call.pick(gateways.servers[1], header=None), call.answer()))
    going_to(gateways, 1)


def metadata_wins(gateways, picker):
    """Header and metadata differ."""
    picker.script = lambda call: (yield from chain(call.pick("", header=gateways.servers[0], metadata=gateways.servers[1]), call.answer()))
    going_to(gateways, 1)


def dead_first(gateways, picker):
    """The first of the list refuses connections; the second serves."""
    picker.script = lambda call: (yield from chain(call.pick(f"{gateways.dead},{gateways.servers[1]}"), call.answer()))
    going_to(gateways, 1)


def outside_the_pool(gateways, picker):
    """A server that is none of the pool's."""
    picker.script = lambda call: (yield from chain(call.pick("127.0.0.1:1"), call.answer()))
    failing(gateways)


def immediate(gateways, picker):
    """A refusal is an answer, whatever the failure mode."""
    for status in (429, 503):
        def script(call, status=status):
            call.request()
            yield call.immediate(status, b"not now", [("retry-after", "7")])
        picker.script = script
        for mode in gateways.listen:
            got, head, text = gateways.ask(mode)
            assert (got, text, head.get("retry-after")) == (status, b"not now", "7"), (mode, got, head, text)


def ends_well_in_mid_body(gateways, picker):
    """It ends its stream with OK before the request has been given back."""
    def script(call):
        body = call.request()
        yield call.head(gateways.servers[0], gateways.servers[0])
        yield from call.body(body[:100_000], last=False)
    picker.script = script
    # What a server has begun to get cannot be taken back; either way nobody gets an answer to half a prompt.
    for mode in gateways.listen:
        status, _, text = gateways.ask(mode)
        assert status in (200, 503), (mode, status, text[:300])
    picker.script = lambda call: iter(())
    failing(gateways)


def hangs(gateways, picker):
    """It takes the request and says nothing."""
    def script(call):
        call.request()
        time.sleep(5)
        yield call.head(gateways.servers[0])
    picker.script = script
    failing(gateways, "picker_timeout")


def garbage(gateways, picker):
    """What comes is no message."""
    def script(call):
        call.request()
        yield b"\xff\xff\xff\xff\xff\xff"
    picker.script = script
    failing(gateways)


def over_long(gateways, picker):
    """A head's reply of 200 MB."""
    def script(call):
        call.request()
        yield call.head(gateways.servers[0], fields=[("x-long", "x" * 200_000_000)])
    picker.script = script
    failing(gateways)


def forbidden_changes(gateways, picker):
    """Fields that are not a picker's business stay as they are."""
    wanted = [("host", "evil"), (":authority", "evil"), (":method", "GET"), ("content-length", "3"), ("transfer-encoding", "gzip"), ("connection", "x-y"), ("x-fine", "yes")]
    picker.script = lambda call: (yield from chain(call.pick(gateways.servers[0], fields=wanted), call.answer()))
    for mode in gateways.listen:
        status, _, text = gateways.ask(mode)
        fields = json.loads(text)["fields"]
        assert status == 200 and fields.get("x-fine") == "yes", (mode, status, fields)
        assert "evil" not in fields.values() and fields.get("transfer-encoding") != "gzip", (mode, fields)


def changed_answers(gateways, picker):
    """Fields and body of the answer are the picker's."""
    picker.script = lambda call: (yield from chain(call.pick(gateways.servers[0]), call.answer([("x-by", "picker")], lambda piece: piece.upper())))
    for mode in gateways.listen:
        status, head, text = gateways.ask(mode)
        assert status == 200 and head["x-by"] == "picker" and b'"SHA256"' in text, (mode, status, head, text[:200])


def lost_in_the_answer(gateways, picker):
    """Its stream breaks after the first piece of the answer: FailOpen goes on untouched, FailClose breaks off."""
    def script(call):
        yield from call.pick(gateways.servers[0])
        for number, reply in enumerate(call.answer()):
            yield reply
            if number == 1:
                call.context.abort(grpc.StatusCode.INTERNAL, "lost")
    picker.script = script
    status, _, text = gateways.ask("FailOpen", give=2_000_000)
    assert status == 200 and len(text) == 2_000_000, (status, len(text))
    try:
        status, _, text = gateways.ask("FailClose", give=2_000_000)
        assert status != 200 or len(text) < 2_000_000, (status, len(text))
    except OSError:
        pass
    except Exception as error:  # noqa: BLE001  (http.client's IncompleteRead is no OSError)
        assert "IncompleteRead" in type(error).__name__, error


def empty_replies_to_bodies(gateways, picker):
    """As the reference's own lightweight picker of v1.6.0: each piece is answered at once, without a body, before the head."""
    def script(call):
        for message in call.incoming:
            which = message.WhichOneof("request")
            reply = call.pb.ProcessingResponse()
            if which in ("request_body", "response_body"):
                getattr(reply, which).response.SetInParent()
                yield reply
                if which == "request_body" and message.request_body.end_of_stream:
                    yield call.head(gateways.servers[1], gateways.servers[1])
                if which == "response_body" and message.response_body.end_of_stream:
                    return
            elif which == "response_headers":
                reply.response_headers.response.SetInParent()
                yield reply
    picker.script = script
    going_to(gateways, 1)


def chain(*parts):
    for part in parts:
        yield from part


CASES = [
    header_only,
    metadata_only,
    metadata_wins,
    dead_first,
    outside_the_pool,
    immediate,
    ends_well_in_mid_body,
    hangs,
    garbage,
    forbidden_changes,
    changed_answers,
    lost_in_the_answer,
    empty_replies_to_bodies,
    # The last: making it keeps the picker busy for a while.
    over_long,
]


def own_picker(world):
    """`serve` asks `pointsman epp`: large bodies and streams pass, and with FailOpen its death under load fails nobody."""
    grpc_port = free_port()
    gateways = Gateways(world, grpc_port, ())
    process, *_ = world.picker(gateways.ports, "--secure-serving=false", "--fallbacks=2", grpc=grpc_port)
    for mode in gateways.listen:
        for size in (10, 62_000, 5_000_000):
            status, _, text = gateways.ask(mode, size)
            assert status == 200, (mode, size, status, text[:300])
    asked = get(gateways.admin["FailClose"] + "/metrics")[1]
    assert 'pointsman_picker_requests_total{' in asked and 'picked' in asked, "the picker was not asked"
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = [pool.submit(gateways.ask, "FailOpen", 1000) for _ in range(200)]
        process.signal(signal.SIGKILL)
        got = [each.result()[0] for each in statuses]
    assert set(got) == {200}, {status: got.count(status) for status in set(got)}
    status, _, text = gateways.ask("FailClose")
    assert status == 503, (status, text[:300])
    world.picker(gateways.ports, "--secure-serving=false", grpc=grpc_port, name="epp-again")
    end = time.time() + 10
    while gateways.ask("FailClose", 10)[0] != 200:
        assert time.time() < end, "a picker that came back is not asked"
        time.sleep(0.1)


def run(name, doc, case):
    start = time.time()
    try:
        case()
        print(f"PASS {name} ({time.time() - start:.1f} s): {doc}", flush=True)
        return True
    except Exception:  # noqa: BLE001  (every failure is told, and counted)
        print(f"FAIL {name}\n{traceback.format_exc()}", flush=True)
        return False


def main(binary, only=""):
    results = []
    with tempfile.TemporaryDirectory() as folder, Weather(binary, None) as world:
        picker = Server(generate(folder))
        gateways = Gateways(world, picker.port)
        for case in CASES:
            if only in case.__name__:
                results.append(run(case.__name__, case.__doc__, lambda case=case: case(gateways, picker)))
    if only in own_picker.__name__:
        with Weather(binary, None) as world:
            results.append(run(own_picker.__name__, own_picker.__doc__, lambda: own_picker(world)))
    # The module path of the reference's lightweight picker is not served by package proxies, so it cannot be built here.
    print("SKIPPED: the reference's own lightweight picker (a scripted one does as its v1.6.0 does)")
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed", flush=True)
    # grpcio's threads may still wait for calls that hang.
    os._exit(0 if results and all(results) else 1)


if __name__ == "__main__":
    main(*sys.argv[1:3])
