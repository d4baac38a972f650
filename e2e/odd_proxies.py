#!/usr/bin/env python3
"""odd_proxies.py POINTSMAN [NAME]: the endpoint picker is asked by proxies that behave otherwise than Envoy.

They speak through grpcio and types of its own compiler. Ends with `N passed, N failed`.
"""
import json
import os
import queue
import sys
import tempfile

import grpc

from behind_envoy import Weather, until
from epp import completion, wait_idle
from harness import get
from odd_pickers import DESTINATION, METHOD, generate, run

MODE_DUPLEX = 4


class Stream:
    """One stream that is open until `close`."""

    def __init__(self, pb, port):
        self.pb, self.out = pb, queue.Queue()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        send = lambda message: message if isinstance(message, bytes) else message.SerializeToString()  # noqa: E731
        call = self.channel.stream_stream(f"/{METHOD[0]}/{METHOD[1]}", send, pb.ProcessingResponse.FromString)
        self.replies = call(iter(self.out.get, None), timeout=20)

    def tell(self, **part):
        self.out.put(self.pb.ProcessingRequest(**part))

    def head(self, end=False):
        fields = [{"key": ":method", "raw_value": b"POST"}, {"key": ":path", "raw_value": b"/v1/completions"}, {"key": "content-type", "raw_value": b"application/json"}]
        config = {"request_body_mode": MODE_DUPLEX, "response_body_mode": MODE_DUPLEX}
        self.tell(protocol_config=config, request_headers={"headers": {"headers": fields}, "end_of_stream": end})

    def body(self, body, end=True):
        self.tell(request_body={"body": body, "end_of_stream": end})

    def answer(self, text):
        fields = [{"key": ":status", "raw_value": b"200"}, {"key": "content-type", "raw_value": b"application/json"}]
        self.tell(response_headers={"headers": {"headers": fields}})
        assert self.next() == "response_headers"
        self.tell(response_body={"body": text, "end_of_stream": True})
        assert self.next() == "response_body"

    def next(self):
        """The kind of the next reply."""
        self.last = next(self.replies)
        return self.last.WhichOneof("response")

    def picked(self):
        """Reads head and whole body of the request's replies; the server."""
        assert self.next() == "request_headers", self.last
        to = self.last.dynamic_metadata["envoy.lb"][DESTINATION]
        body = b""
        while True:
            assert self.next() == "request_body", self.last
            piece = self.last.request_body.response.body_mutation.streamed_response
            body += piece.body
            if piece.end_of_stream:
                return to, body

    def close(self):
        self.replies.cancel()
        self.channel.close()


def in_flight(admin):
    status = json.loads(get(admin + "/status")[1])
    return sum(server["in_flight"] for pool in status["pools"] for server in pool["endpoints"])


def never_half_closes(stream, admin):
    """It keeps its stream after the answer's end: the charge goes back all the same."""
    sent = json.dumps(completion("x" * 200_000)).encode()
    stream.head()
    stream.body(sent)
    to, body = stream.picked()
    assert body == sent and to.startswith("127.0.0.1:"), to
    until(lambda: in_flight(admin) == 1, "the pick is charged")
    stream.answer(b'{"usage":{"prompt_tokens":1,"completion_tokens":1}}')
    wait_idle(admin)


def ends_the_body_twice(stream, admin):
    """Two pieces say that they are the last: what comes after the first is not looked at."""
    sent = json.dumps(completion()).encode()
    stream.head()
    stream.body(sent)
    assert stream.picked()[1] == sent
    stream.body(b"more")
    stream.answer(b"{}")
    wait_idle(admin)


def goes_away(stream, admin):
    """It resets the stream when it has its pick: the charge goes back."""
    stream.head()
    stream.body(json.dumps(completion()).encode())
    stream.picked()
    until(lambda: in_flight(admin) == 1, "the pick is charged")
    stream.close()
    wait_idle(admin)


def half_closes_in_the_body(stream, admin):
    """It ends its side before the body's end: an error, never a stream that ends well and lets half a prompt through."""
    stream.head()
    stream.body(b'{"model": "simul', end=False)
    stream.out.put(None)
    try:
        reply = stream.next()
    except (grpc.RpcError, StopIteration) as end:
        assert isinstance(end, grpc.RpcError) and end.code() != grpc.StatusCode.OK, "it ended well"
    else:
        assert reply == "immediate_response", reply
    wait_idle(admin)


def sends_garbage(stream, admin):
    """What comes is no message: an error."""
    stream.out.put(b"\xff\xff\xff\xff")
    try:
        stream.next()
        raise AssertionError(f"garbage was answered: {stream.last}")
    except grpc.RpcError as error:
        assert error.code() != grpc.StatusCode.OK
    wait_idle(admin)


CASES = [never_half_closes, ends_the_body_twice, goes_away, half_closes_in_the_body, sends_garbage]


def one(case, pb, port, admin):
    stream = Stream(pb, port)
    try:
        case(stream, admin)
    finally:
        stream.close()


def main(binary, only=""):
    results = []
    with tempfile.TemporaryDirectory() as folder, Weather(binary, None) as world:
        pb = generate(folder)
        _, port, admin = world.picker(world.obedient(2), "--secure-serving=false")
        for case in CASES:
            if only in case.__name__:
                results.append(run(case.__name__, case.__doc__, lambda case=case: one(case, pb, port, admin)))
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed", flush=True)
    os._exit(0 if results and all(results) else 1)


if __name__ == "__main__":
    main(*sys.argv[1:3])
