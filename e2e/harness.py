"""Processes of the end-to-end stage: started on free loopback ports, waited for, and always ended by id."""
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
LOGS = pathlib.Path(os.environ.get("E2E_LOGS", "/tmp/pointsman-e2e"))
LOGS.mkdir(parents=True, exist_ok=True)


BLOCK = 100
_held = []
_next = iter(())


def free_port():
    """A port that nobody has, and that is not given twice.

    It lies below the range from which systems give ports to outgoing connections, so that no connection takes it
    between here and its use; and in a block that this process holds by its first port, so that no other run takes it.
    """
    global _next
    while True:
        for port in _next:
            with socket.socket() as s, contextlib.suppress(OSError):
                s.bind(("127.0.0.1", port))
                return port
        first = _block()
        _next = iter(range(first + 1, first + BLOCK))


def _block():
    """The first port of a block that nobody else holds, held from now on."""
    for turn in range(200):
        first = 12_000 + (os.getpid() + turn) % 200 * BLOCK
        holder = socket.socket()
        try:
            holder.bind(("127.0.0.1", first))
            holder.listen()
        except OSError:
            holder.close()
            continue
        _held.append(holder)
        return first
    raise RuntimeError("every block of ports from 12000 to 31999 is held by another process")


def get(url, timeout=2.0):
    """Status and body of a GET; status 0 when nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


class Process:
    """A child with its log; `stop` is safe to call twice and wakes a frozen one first."""

    def __init__(self, name, command):
        self.name, self.command = name, [str(c) for c in command]
        self.log = LOGS / f"{name}.log"
        self.child = subprocess.Popen(self.command, stdout=self.log.open("wb"), stderr=subprocess.STDOUT)

    def wait_for(self, url, limit=30.0):
        """Waits until `url` answers 200."""
        end = time.time() + limit
        while time.time() < end:
            if self.child.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.child.returncode}:\n{self.log.read_text()[-2000:]}")
            if get(url)[0] == 200:
                return self
            time.sleep(0.05)
        raise RuntimeError(f"{self.name}: {url} did not answer 200 within {limit} s:\n{self.log.read_text()[-2000:]}")

    def signal(self, number):
        self.child.send_signal(number)

    def stop(self, grace=5.0):
        if self.child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.child.send_signal(signal.SIGCONT)
                self.child.terminate()
            try:
                self.child.wait(grace)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


class World(contextlib.ExitStack):
    """Starts things and ends them all on the way out."""

    def __init__(self, binary, model):
        super().__init__()
        self.binary, self.model, self.processes = binary, model, {}

    def start(self, name, command, url):
        process = self.processes[name] = Process(name, command)
        self.callback(process.stop)
        return process.wait_for(url)

    def llamacpp(self, name, port=None, **options):
        """A llama.cpp server; returns (process, base URL)."""
        port = port or free_port()
        flags = [f for key, value in options.items() for f in (f"--{key.replace('_', '-')}", value)]
        process = self.start(name, [sys.executable, HERE / "llamacpp.py", self.model, port, *flags], f"http://127.0.0.1:{port}/health")
        return process, f"http://127.0.0.1:{port}"

    def gateway(self, *arguments, name="gateway"):
        """The gateway; returns (process, base URL, admin URL)."""
        port, admin = free_port(), free_port()
        command = [self.binary, "serve", *arguments, "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"]
        process = self.start(name, command, f"http://127.0.0.1:{admin}/readyz")
        return process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}"
