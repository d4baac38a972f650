#!/usr/bin/env python3
"""behind_envoy.py POINTSMAN [NAME]: the endpoint picker behind a real Envoy, in bad weather. Ends with `N passed, N failed`."""
import asyncio
import hashlib
import http.client
import json
import re
import signal
import ssl
import subprocess
import sys
import time
import traceback

import envoy_config as envoy
from epp import COMPLETIONS, Setup, ask, completion, wait_idle
from harness import HERE, LOGS, free_port, get
from run import names_of

SIZES = [64, 61_999, 62_000, 62_001, 65_536, 1_048_577, 5_000_000]


class Weather(Setup):
    """What the scenarios need besides."""

    def obedient(self, count):
        """Ports of servers in one process."""
        ports = [free_port() for _ in range(count)]
        self.start(f"obedient-{ports[0]}", [sys.executable, HERE / "obedient.py", *ports], f"http://127.0.0.1:{ports[0]}/held")
        return ports

    def picker(self, *arguments, **options):
        """Without models under other names every request is standard: it waits its turn and is not shed."""
        return super().picker(*arguments, **{"names": False, **options})


def release(port, name=""):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", f"/release/{name}".rstrip("/"))
    connection.getresponse().read()
    connection.close()


def held(ports):
    return json.loads(get(f"http://127.0.0.1:{ports[0]}/held", 10)[1])["held"]


def until(condition, what, limit=20.0):
    end = time.time() + limit
    while not condition():
        if time.time() > end:
            raise AssertionError(f"{what}: not within {limit} s")
        time.sleep(0.02)


def resident_kib(process):
    with open(f"/proc/{process.child.pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])


class Stream:
    """One streamed request over a connection of its own; `begin` returns when its head has come."""

    def __init__(self, port, **fields):
        self.port, self.body = port, json.dumps(completion(stream=True, **fields)).encode()
        self.status, self.whole, self.writer = 0, False, None

    async def begin(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"POST {COMPLETIONS} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {len(self.body)}\r\n\r\n"
        self.writer.write(head.encode() + self.body)
        self.status = int((await self.reader.readuntil(b"\r\n\r\n")).split()[1])
        return self

    async def event(self):
        """The next event."""
        return await asyncio.wait_for(self.reader.readuntil(b"\n\n"), 10)

    async def end(self):
        """Reads to the end; `whole` says whether it is the right one."""
        self.whole = b"data: [DONE]" in await self.reader.read()
        self.writer.close()
        return self


async def attempt(port, limit=60, **fields):
    """Sends one request. What became of it: its status; `cut` where its 200 had come; `no answer`."""
    stream = Stream(port, **fields)
    try:
        await asyncio.wait_for(stream.begin(), limit)
        await asyncio.wait_for(stream.end(), limit)
    except (OSError, asyncio.IncompleteReadError):
        return "cut" if stream.status == 200 else "no answer"
    except TimeoutError:
        return "hangs"
    if stream.status != 200:
        return stream.status
    return "ok" if stream.whole else "cut"


async def load(port, seconds, workers=16, during=None, **fields):
    """Streams without a pause; `during` runs beside them. What became of them, counted."""
    outcomes, end = {}, time.time() + seconds

    async def worker(number):
        n = 0
        while time.time() < end:
            n += 1
            result = await attempt(port, prompt=f"worker {number} asks {n}", **fields)
            outcomes[result] = outcomes.get(result, 0) + 1
            if result != "ok":
                await asyncio.sleep(0.02)

    jobs = [worker(number) for number in range(workers)]
    if during:
        jobs.append(during())
    await asyncio.gather(*jobs)
    return outcomes


def all_well(port, requests=60):
    outcomes = {}
    for n in range(requests):
        status = ask(port, completion(f"afterwards {n}"))[0]
        outcomes[status] = outcomes.get(status, 0) + 1
    assert outcomes == {200: requests}, f"afterwards not all is well: {outcomes}"


def sdks_see_no_difference(setup):
    """Real SDKs over llama.cpp get the same through Envoy and the picker as from the server itself."""
    setup.model = LOGS / "tiny.gguf"
    subprocess.run([sys.executable, HERE / "tiny_model.py", setup.model], check=True)
    servers = [setup.llamacpp(f"llama-{i}")[1] for i in range(2)]
    ports = [int(url.rsplit(":", 1)[1]) for url in servers]
    _, picker, admin = setup.picker(ports)
    port = setup.envoy(picker, ports)
    cases = {}
    for base in (servers[0], f"http://127.0.0.1:{port}"):
        command = [sys.executable, HERE / "sdk_probe.py", base, "tiny"]
        cases[base] = names_of(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout)
    direct, through = cases.values()
    assert len(direct) >= 20, f"the probe ran only {len(direct)} cases"
    differ = {case: (direct[case], through.get(case)) for case in direct if direct[case] != through.get(case)}
    assert not differ, f"direct and through differ: {differ}"
    wait_idle(admin)
    return f"{sum(v == 'PASS' for v in through.values())} of {len(through)} cases pass, direct and through alike"


def bodies_arrive_whole(setup):
    """Bodies up to 5 MB arrive byte for byte, and answers of 5 MB come back so, in every mode and by both clusters."""
    ports = setup.obedient(2)
    _, picker, admin = setup.picker(ports)
    for mode in envoy.MODES:
        # Without bodies the pick is in the header at once; so it is the one that an original_dst cluster is given.
        port = setup.envoy(picker, ports, name=f"envoy-{mode}", mode=mode, original=mode in ("heads", "duplex-request"))
        for size in SIZES:
            body = json.dumps(completion("x" * size)).encode()
            status, _, text = ask(port, body)
            assert status == 200, (mode, size, status, text[:200])
            assert json.loads(text)["sha256"] == hashlib.sha256(body).hexdigest(), (mode, size, "another body arrived")
        status, _, text = ask(port, completion(give=5_000_000))
        sent = hashlib.sha256(json.dumps(completion(give=5_000_000)).encode()).hexdigest()
        assert status == 200 and len(text) == 5_000_000 and text.endswith(sent.encode()), (mode, status, len(text))
    wait_idle(admin)
    return f"{len(envoy.MODES)} modes x {len(SIZES)} sizes"


def nothing_is_held_back(setup):
    """Head and events of a stream come one by one: each is let out only when the one before has arrived."""
    ports = setup.obedient(1)
    _, picker, admin = setup.picker(ports)

    async def lockstep(port, name):
        stream = await asyncio.wait_for(Stream(port, hold=20, id=name).begin(), 10)
        assert stream.status == 200
        for i in range(20):
            release(ports[0], name)
            event = await stream.event()
            assert f"w{i} ".encode() in event, (i, event)
        return (await stream.end()).whole

    for mode in envoy.MODES:
        port = setup.envoy(picker, ports, name=f"envoy-{mode}", mode=mode)
        assert asyncio.run(lockstep(port, mode)), mode
    wait_idle(admin)
    return f"{len(envoy.MODES)} modes x 20 events"


def two_thousand_streams(setup):
    """2,000 streams at once run side by side; Envoy's default circuit breakers refuse some, and nothing wedges."""
    # A server whose batch is not known is believed to run 256 at once; what is more waits in the picker.
    ports = setup.obedient(8)
    _, picker, admin = setup.picker(ports)

    async def crowd(port, count):
        begun = [asyncio.ensure_future(attempt(port, prompt=f"stream {n}", hold=2)) for n in range(count)]
        # All that will run are seen to run at the same time before one may end.
        before = -1
        while held(ports) != before or before == 0:
            before = held(ports)
            await asyncio.sleep(1.0)
        release(ports[0])
        outcomes = {}
        for outcome in await asyncio.gather(*begun):
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        return before, outcomes

    said = []
    for raised in (True, False):
        port = setup.envoy(picker, ports, name=f"envoy-raised-{raised}", raised=raised)
        at_once, outcomes = asyncio.run(crowd(port, 2000))
        if raised:
            assert at_once == 2000 and outcomes == {"ok": 2000}, (at_once, outcomes)
        else:
            assert outcomes.get("ok", 0) >= 500 and not set(outcomes) - {"ok", 500, 503}, outcomes
        said.append(f"{'raised' if raised else 'default'} breakers: {at_once} at once, {outcomes}")
        wait_idle(admin)
        all_well(port)
    return "; ".join(said)


def a_lost_picker_fails_as_the_table_says(setup):
    """With the picker away Envoy answers 500, or goes on by itself where it was allowed to and no body is held by the picker."""
    ports = setup.obedient(1)
    port_of_nobody = free_port()
    for mode in ("heads", "buffered", "duplex-request", "duplex"):
        for allow in (False, True):
            port = setup.envoy(port_of_nobody, ports, name=f"envoy-{mode}-{allow}", mode=mode, allow=allow)
            expected = 200 if allow and not mode.startswith("duplex") else 500
            status = ask(port, completion())[0]
            assert status == expected, (mode, allow, status)
    return "4 modes x 2"


def the_picker_is_killed_under_load(setup):
    """What runs then breaks off or fails with 500, nothing else happens, nothing hangs; afterwards all is well."""
    ports = setup.servers(2)
    grpc = free_port()
    process, picker, _ = setup.picker(ports, grpc=grpc)
    port = setup.envoy(picker, ports)

    async def kill():
        nonlocal process
        await asyncio.sleep(2)
        process.signal(signal.SIGKILL)
        process.child.wait()
        await asyncio.sleep(1)
        process, *_ = await asyncio.to_thread(setup.picker, ports, name="epp-again", grpc=grpc)

    outcomes = asyncio.run(load(port, 6, during=kill, max_tokens=16))
    assert not set(outcomes) - {"ok", "cut", 500, 503}, outcomes
    assert outcomes.get("ok", 0) > 100 and outcomes.get(500, 0) + outcomes.get(503, 0) > 0, outcomes
    all_well(port)
    return str(outcomes)


def subset_hints(setup):
    """A list and a text narrow the choice alike; empty, unknown and mixed ones do as they should."""
    ports = setup.servers(3)
    _, picker, admin = setup.picker(ports)
    one, two = f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}"
    hints = {
        "list": ([one], {one}),
        "text": (f"{one},{two}", {one, two}),
        "mixed": (["10.9.9.9:1", two], {two}),
        "empty": ([], set()),
        "unknown": (["10.9.9.9:1"], set()),
    }
    for name, (hint, allowed) in hints.items():
        port = setup.envoy(picker, ports, name=f"envoy-{name}", subset=hint)
        before = served_by(admin)
        statuses = {ask(port, completion(f"{name} {n}"))[0] for n in range(8)}
        now = served_by(admin)
        served = {server for server in now if now[server] > before.get(server, 0)}
        assert statuses == ({200} if allowed else {503}), (name, statuses)
        assert served <= allowed and bool(served) == bool(allowed), (name, served)
    return f"{len(hints)} forms"


def served_by(admin):
    """{server: requests} as the picker counts them."""
    counts = {}
    for line in get(admin + "/metrics")[1].splitlines():
        found = re.match(r'pointsman_requests_total\{.*endpoint="([^"]+)".*\} (\d+)', line)
        if found:
            counts[found[1]] = counts.get(found[1], 0) + int(found[2])
    return counts


def weighted_pools(setup):
    """A route over two pools asks the picker of the pool that a request goes to; each counts what its servers served."""
    pools, admins = [], []
    for weight, name in ((80, "epp-a"), (20, "epp-b")):
        ports = setup.obedient(2)
        _, picker, admin = setup.picker(ports, name=name)
        pools.append((weight, picker, ports))
        admins.append(admin)
    port = setup.envoy(pools[0][1], pools[0][2], pools=pools)
    for n in range(300):
        assert ask(port, completion(f"question {n}"))[0] == 200
    totals = []
    for (_, _, ports), admin in zip(pools, admins, strict=True):
        wait_idle(admin)
        served = {f"127.0.0.1:{p}": json.loads(get(f"http://127.0.0.1:{p}/held")[1])["served"] for p in ports}
        counted = served_by(admin)
        assert {k: counted.get(k, 0) for k in served} == served and set(counted) <= set(served), (served, counted)
        totals.append(sum(served.values()))
    assert sum(totals) == 300 and 200 <= totals[0] <= 280, totals
    return f"{totals} of 300"


def a_slow_client_stops_nobody(setup):
    """A client that does not read its 40 MB answer for a while holds up nobody, and the picker keeps only some of it."""
    ports = setup.obedient(1)
    process, picker, _ = setup.picker(ports)
    port = setup.envoy(picker, ports)
    all_well(port)
    before = resident_kib(process)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", COMPLETIONS, json.dumps(completion(give=40_000_000)), {"content-type": "application/json"})
    answer = connection.getresponse()
    time.sleep(1)
    all_well(port)
    grown = resident_kib(process) - before
    text = answer.read()
    assert answer.status == 200 and len(text) == 40_000_000, (answer.status, len(text))
    # Envoy takes the picker's pieces as fast as they come, up to its window for a stream, so some are on their way.
    assert grown < 32_768, f"the picker grew by {grown} KiB"
    return f"the picker grew by {grown} KiB"


def ten_thousand_idle_streams(setup):
    """10,000 open streams through two Envoys; what each costs the picker."""
    ports = setup.obedient(40)
    process, picker, admin = setup.picker(ports)
    proxies = [setup.envoy(picker, ports, name=f"envoy-{i}") for i in range(2)]
    for port in proxies:
        all_well(port)
    before = resident_kib(process)

    async def idle():
        waiting, most = [], asyncio.Semaphore(200)

        async def begin(n):
            async with most:
                return await asyncio.wait_for(Stream(proxies[n % 2], prompt=f"idle {n}", hold=1).begin(), 60)

        streams = await asyncio.gather(*(begin(n) for n in range(10_000)))
        assert {stream.status for stream in streams} == {200}
        kib = (resident_kib(process) - before) / len(streams)
        release(ports[0])
        waiting = await asyncio.gather(*(stream.end() for stream in streams))
        return kib, sum(stream.whole for stream in waiting)

    kib, whole = asyncio.run(idle())
    assert whole == 10_000, whole
    assert kib < 64, f"{kib:.1f} KiB for each stream"
    wait_idle(admin)
    return f"{kib:.1f} KiB of the picker's memory for each stream"


def streams_that_end_together(setup):
    """2,000 streams end in one pass of Envoy, which drops a connection where that makes over 1,000 resets: it has 900 streams on each."""
    ports = setup.obedient(8)
    process, picker, admin = setup.picker(ports)
    port = setup.envoy(picker, ports)
    proxy = setup.processes["envoy"]
    with open(proxy.command[2]) as settings:
        stats = json.load(settings)["admin"]["address"]["socket_address"]["port_value"]

    async def together():
        streams = await asyncio.gather(*(Stream(port, prompt=f"idle {n}", hold=1).begin() for n in range(2000)))
        # The picker finds all the ends at once, and then Envoy all that the picker says of them.
        process.signal(signal.SIGSTOP)
        release(ports[0])
        await asyncio.sleep(3)
        proxy.signal(signal.SIGSTOP)
        process.signal(signal.SIGCONT)
        await asyncio.sleep(2)
        proxy.signal(signal.SIGCONT)
        return sum(stream.whole for stream in await asyncio.gather(*(stream.end() for stream in streams)))

    whole = asyncio.run(together())
    assert whole == 2000, f"{whole} of 2000 are whole"
    flood = get(f"http://127.0.0.1:{stats}/stats?filter=http2.outbound_control_flood")[1]
    assert flood.split() == ["cluster.picker.http2.outbound_control_flood:", "0"], flood
    wait_idle(admin)
    all_well(port)
    return f"{whole} streams"


def make_certificate(folder):
    """A new self-signed certificate, moved into place as editors do."""
    new = folder / "new"
    new.mkdir(exist_ok=True)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=epp"]
    subprocess.run([*command, "-keyout", new / "tls.key", "-out", new / "tls.crt"], check=True, capture_output=True)
    for name in ("tls.key", "tls.crt"):
        (new / name).rename(folder / name)


def a_certificate_is_replaced_under_load(setup):
    """A new certificate is served within seconds, and no request is lost."""
    ports = setup.servers(1)
    folder = setup.folder / "certificate"
    folder.mkdir()
    make_certificate(folder)
    _, picker, _ = setup.picker(ports, f"--cert-path={folder}")
    port = setup.envoy(picker, ports)
    first = ssl.get_server_certificate(("127.0.0.1", picker))

    async def replace():
        await asyncio.sleep(0.5)
        make_certificate(folder)
        def served():
            return ssl.get_server_certificate(("127.0.0.1", picker)) != first
        await asyncio.to_thread(until, served, "the new certificate is served")

    outcomes = asyncio.run(load(port, 7, workers=4, during=replace, max_tokens=8))
    assert set(outcomes) == {"ok"} and outcomes["ok"] > 50, outcomes
    return f"{outcomes['ok']} streams"


def a_server_goes_between_pick_and_connect(setup):
    """The picker's list has others behind the first: with one retry in Envoy a killed server fails nobody who has no answer yet."""
    ports = setup.servers(3)
    _, picker, _ = setup.picker(ports, "--fallbacks=2")
    port = setup.envoy(picker, ports, retries=2)
    victim = setup.processes[f"sim-{ports[0]}"]

    async def kill():
        await asyncio.sleep(1.5)
        victim.signal(signal.SIGKILL)

    outcomes = asyncio.run(load(port, 4, during=kill, max_tokens=16))
    # A request that the server had taken when it died was not refused a connection; Envoy answers 502 or 503 for it.
    assert not set(outcomes) - {"ok", "cut", 502, 503} and outcomes.get(502, 0) + outcomes.get(503, 0) <= 16 and outcomes["ok"] > 100, outcomes
    all_well(port)
    return str(outcomes)


SCENARIOS = [
    bodies_arrive_whole,
    nothing_is_held_back,
    sdks_see_no_difference,
    two_thousand_streams,
    a_lost_picker_fails_as_the_table_says,
    the_picker_is_killed_under_load,
    subset_hints,
    weighted_pools,
    a_slow_client_stops_nobody,
    ten_thousand_idle_streams,
    streams_that_end_together,
    a_certificate_is_replaced_under_load,
    a_server_goes_between_pick_and_connect,
]


def main(binary, only=""):
    path = envoy.binary()
    if path is None:
        print("there is no Envoy here")
        return 77
    passed = failed = 0
    for scenario in SCENARIOS:
        if only not in scenario.__name__:
            continue
        start = time.time()
        try:
            with Weather(binary, path) as setup:
                said = scenario(setup)
            passed += 1
            print(f"PASS {scenario.__name__} ({time.time() - start:.0f} s): {said}", flush=True)
        except Exception:  # noqa: BLE001  (a scenario's failure must not hide the others)
            failed += 1
            print(f"FAIL {scenario.__name__} ({time.time() - start:.0f} s)\n{traceback.format_exc()}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
