#!/usr/bin/env python3
"""obedient.py PORT...: model servers that do exactly what the body of a request asks for; they run until SIGTERM.

Fields of the body, besides `model` and `prompt`:
  hold: N    an event stream: its head, then N events, each sent only when `POST /release/ID` has let it (`id: ID`)
  give: N    an answer of N bytes, of which the last 64 are the SHA-256 of the request's body
Without either, a small completion with the request's fields, and the SHA-256 and the length of its body.

So a test can let one event out, see it arrive, and only then let the next one out: what holds anything back is found
without a clock. `/held` says how many streams wait in all servers and what this one served; `/release` lets all events
of all streams out.
"""
import asyncio
import hashlib
import json
import signal
import sys

GAUGES = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="simulated"} 0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{model_name="simulated"} 0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{model_name="simulated"} 0.0
"""
gates, served, open_doors = {}, {}, asyncio.Event()


def answer(writer, body, kind="application/json", status="200 OK"):
    data = body if isinstance(body, bytes) else body.encode()
    writer.write(f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data)


async def hold(writer, request):
    """Head and events one by one, as they are let out."""
    gate = gates.setdefault(request.get("id", f"anonymous-{len(gates)}"), asyncio.Semaphore(0))

    async def let():
        waits = [asyncio.ensure_future(gate.acquire()), asyncio.ensure_future(open_doors.wait())]
        _, late = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in late:
            wait.cancel()

    head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    writer.write(head.encode())
    for i in range(request["hold"]):
        await let()
        event = f'data: {{"choices":[{{"index":0,"text":"w{i} "}}]}}\n\n'
        writer.write(f"{len(event):x}\r\n{event}\r\n".encode())
        await writer.drain()
    writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


async def give(writer, request, digest):
    writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {request['give']}\r\n\r\n".encode())
    left, piece = request["give"] - len(digest), b"." * 65536
    while left > 0:
        writer.write(piece[:left])
        left -= len(piece)
        await writer.drain()
    writer.write(digest.encode())


async def respond(port, writer, method, path, fields, body):
    if path == "/metrics":
        answer(writer, GAUGES, "text/plain")
    elif path == "/held":
        answer(writer, json.dumps({"held": len(gates), "served": served.get(port, 0)}))
    elif path.startswith("/release"):
        name = path.removeprefix("/release").strip("/")
        if name:
            gates.setdefault(name, asyncio.Semaphore(0)).release()
        else:
            open_doors.set()
            asyncio.get_running_loop().call_later(1.0, open_doors.clear)
            gates.clear()
        answer(writer, "{}")
    elif method == "GET":
        answer(writer, json.dumps({"object": "list", "data": [{"id": "simulated", "object": "model"}]}))
    else:
        served[port] = served.get(port, 0) + 1
        request, digest = json.loads(body), hashlib.sha256(body).hexdigest()
        if "hold" in request:
            await hold(writer, request)
        elif "give" in request:
            await give(writer, request, digest)
        else:
            answer(writer, json.dumps({"port": port, "fields": fields, "sha256": digest, "length": len(body), "usage": {"prompt_tokens": 1, "completion_tokens": 1}}))


async def body_of(reader, fields):
    if "chunked" not in fields.get("transfer-encoding", ""):
        return await reader.readexactly(int(fields.get("content-length", 0)))
    pieces = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        pieces.append(await reader.readexactly(size))
        await reader.readline()
    while (await reader.readline()).strip():
        pass
    return b"".join(pieces)


async def serve(reader, writer):
    port = writer.get_extra_info("sockname")[1]
    try:
        while line := await reader.readline():
            method, path, _ = line.decode().split(" ")
            fields = {}
            while (field := (await reader.readline()).decode().strip()):
                name, _, value = field.partition(":")
                fields[name.lower()] = value.strip()
            await respond(port, writer, method, path, fields, await body_of(reader, fields))
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass  # the other side went away
    finally:
        writer.close()


async def main(ports):
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    for port in ports:
        await asyncio.start_server(serve, "127.0.0.1", port, backlog=4096, limit=1 << 20)
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(main([int(port) for port in sys.argv[1:]]))
