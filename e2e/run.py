#!/usr/bin/env python3
"""run.py POINTSMAN: the gateway before real llama.cpp servers, with real clients. Ends with `N passed, N failed`."""
import asyncio
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import traceback

import httpx

from harness import HERE, LOGS, World, free_port, get

CHAT = "/v1/chat/completions"


def body(i, tokens=48, stream=True):
    """A streamed chat request; every fourth shares a long system prompt."""
    system = "You are a patient assistant. " * (40 if i % 4 else 1)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": f"question {i}"}]
    return {"model": "tiny", "messages": messages, "max_tokens": tokens, "stream": stream, "ignore_eos": True}


async def one(client, base, i, tokens=48):
    """Sends one request. Returns what became of it: ok, cut (its 200 had come) or the failure."""
    begun = False
    try:
        async with client.stream("POST", base + CHAT, json=body(i, tokens)) as answer:
            if answer.status_code != 200:
                return f"status {answer.status_code}: {(await answer.aread())[:200]!r}"
            begun, done = True, False
            async for line in answer.aiter_lines():
                if line.startswith('data: {"error"'):
                    return "cut"
                done = done or line == "data: [DONE]"
            return "ok" if done else "cut"
    except httpx.HTTPError as error:
        return "cut" if begun else f"{type(error).__name__}: {error}"


async def load(base, seconds, workers=12, during=None, tokens=48):
    """Closed-loop streams for `seconds`; `during` runs beside them. Returns a count of each outcome."""
    outcomes, end, numbers = {}, time.time() + seconds, iter(range(10**9))

    async def worker(client):
        while time.time() < end:
            result = await one(client, base, next(numbers), tokens)
            outcomes[result] = outcomes.get(result, 0) + 1

    limits = httpx.Limits(max_connections=workers, max_keepalive_connections=workers)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        jobs = [worker(client) for _ in range(workers)]
        if during:
            jobs.append(during())
        await asyncio.gather(*jobs)
    return outcomes


def names_of(text):
    """{case: PASS or FAIL with the error's type}."""
    cases = {}
    for line in text.splitlines():
        verdict, _, rest = line.partition(" ")
        if verdict in ("PASS", "FAIL"):
            words = rest.split(" ")
            at = next(i for i, word in enumerate(words) if word.endswith("s") and word[:-1].replace(".", "", 1).isdigit())
            cases[" ".join(words[:at])] = verdict if verdict == "PASS" else f"FAIL {words[at + 1]}"
    return cases


def probe(base):
    out = subprocess.run([sys.executable, HERE / "sdk_probe.py", base, "tiny"], capture_output=True, text=True, timeout=240, check=True).stdout
    return names_of(out), out


def sdk_probe_is_the_same_direct_and_through(world):
    servers = [world.llamacpp(f"llama-{i}")[1] for i in range(3)]
    _, base, _ = world.gateway(*servers)
    direct, _ = probe(servers[0])
    through, text = probe(base)
    (LOGS / "probe-through.txt").write_text(text)
    assert len(direct) >= 20, f"the probe ran only {len(direct)} cases"
    differ = {case: (direct[case], through.get(case)) for case in direct if direct[case] != through.get(case)}
    assert not differ, f"direct and through differ: {differ}"
    passed = sum(v == "PASS" for v in through.values())
    return f"{passed} of {len(through)} cases pass, direct and through alike"


def few_http_threads_lose_nothing(world):
    server = world.llamacpp("llama-few", http_threads=4, slots=4)[1]
    _, base, _ = world.gateway(server)

    async def go():
        failures = []
        async with httpx.AsyncClient(timeout=60) as client:
            async def post(i):
                await asyncio.sleep(i * 0.05)
                try:
                    answer = await client.post(base + CHAT, json=body(i, 16, stream=False))
                    if answer.status_code != 200:
                        failures.append(answer.text[:200])
                except httpx.HTTPError as error:
                    failures.append(repr(error))
            for _ in range(2):
                await asyncio.gather(*(post(i) for i in range(24)))
                await asyncio.sleep(5.5)  # past the server's keep-alive of 5 s
        return failures

    failures = asyncio.run(go())
    assert not failures, f"{len(failures)} of 48 failed: {failures[:3]}"
    return "0 failures of 48"


def killed_and_frozen_servers_fail_nobody(world):
    servers = [world.llamacpp(f"llama-{i}") for i in range(3)]
    _, base, admin = world.gateway(*(url for _, url in servers))

    async def weather():
        await asyncio.sleep(3)
        servers[0][0].signal(signal.SIGKILL)
        await asyncio.sleep(3)
        servers[1][0].signal(signal.SIGSTOP)

    outcomes = asyncio.run(load(base, 14, during=weather))
    bad = {k: v for k, v in outcomes.items() if k not in ("ok", "cut")}
    assert not bad, f"requests failed that had not begun to answer: {bad}"
    assert outcomes.get("ok", 0) > 100, f"hardly any traffic: {outcomes}"
    port = int(servers[0][1].rsplit(":", 1)[1])
    servers[1][0].signal(signal.SIGCONT)
    world.llamacpp("llama-back", port=port)
    deadline = time.time() + 30
    served = set()
    while time.time() < deadline and len(served) < 3:
        asyncio.run(load(base, 1))
        served = served_since(admin)
    assert len(served) == 3, f"a lost server did not come back by itself: only {served} served"
    return f"{outcomes}; all three serve again"


def served_since(admin):
    """Endpoints that the recent decisions went to."""
    answer = httpx.get(admin + "/decisions", timeout=5).json()
    return {d["winner"] for d in answer["decisions"][:60]}


FILES = """\
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: tiny, namespace: default}}
spec:
  selector: {{matchLabels: {{app: tiny}}}}
  targetPorts: [{{number: 8000}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw, namespace: default}}
spec:
  gatewayClassName: pointsman
  listeners: [{{name: http, port: {port}, protocol: HTTP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: llm, namespace: default}}
spec:
  parentRefs: [{{name: gw}}]
  rules:
    - backendRefs: [{{group: inference.networking.k8s.io, kind: InferencePool, name: tiny}}]
"""


def slices(urls):
    """EndpointSlices for the given servers."""
    text = []
    for i, url in enumerate(urls):
        port = url.rsplit(":", 1)[1]
        text.append(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
            f"metadata: {{name: tiny-{i}, namespace: default, labels: {{app: tiny}}}}\n"
            f"addressType: IPv4\nports: [{{port: {port}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n"
        )
    return "---\n".join(text)


def replace(path, text):
    """Writes as editors and Kubernetes do: a new file moved over the old one."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def hot_reload_loses_nothing(world):
    servers = [world.llamacpp(f"llama-{i}")[1] for i in range(3)]
    folder = pathlib.Path(world.enter_context(tempfile.TemporaryDirectory()))
    port = free_port()
    (folder / "gateway.yaml").write_text(FILES.format(port=port))
    (folder / "servers.yaml").write_text(slices(servers[:2]))
    _, _, admin = world.gateway("-f", folder)
    base = f"http://127.0.0.1:{port}"
    broken = []

    async def edits():
        for step in range(8):
            await asyncio.sleep(1)
            if step == 4:
                replace(folder / "servers.yaml", "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: x\n")
                await asyncio.sleep(1)
                broken.append(get(admin + "/readyz"))
            chosen = [servers[step % 3], servers[(step + 1) % 3]]
            replace(folder / "servers.yaml", slices(chosen))

    outcomes = asyncio.run(load(base, 11, during=edits))
    assert set(outcomes) == {"ok"}, f"a reload lost requests: {outcomes}"
    assert outcomes["ok"] > 100, outcomes
    status, text = broken[0]
    assert status == 200 and "servers.yaml" in text, f"/readyz does not name the broken file: {status} {text}"
    return f"{outcomes['ok']} streams over 9 reloads, one of them broken, none lost"


SCENARIOS = [
    sdk_probe_is_the_same_direct_and_through,
    few_http_threads_lose_nothing,
    killed_and_frozen_servers_fail_nobody,
    hot_reload_loses_nothing,
]


def main(binary, only=""):
    model = LOGS / "tiny.gguf"
    subprocess.run([sys.executable, HERE / "tiny_model.py", model], check=True)
    passed = failed = 0
    for scenario in SCENARIOS:
        if only not in scenario.__name__:
            continue
        start = time.time()
        try:
            with World(binary, model) as world:
                said = scenario(world)
            passed += 1
            print(f"PASS {scenario.__name__} ({time.time() - start:.0f} s): {said}", flush=True)
        except Exception:  # a scenario's failure must not hide the others
            failed += 1
            print(f"FAIL {scenario.__name__} ({time.time() - start:.0f} s)\n{traceback.format_exc()}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
