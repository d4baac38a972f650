#!/usr/bin/env python3
"""guide.py POINTSMAN: follows docs/behind-envoy.md to the letter: its files, then its commands, in its order.

Only the ports are others, as those of the guide may be in use. Ends with `N passed, N failed`.
"""
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

import envoy_config as envoy
from harness import HERE, LOGS, free_port

GUIDE = HERE.parent / "docs/behind-envoy.md"
PORTS = ["8001", "8002", "8003", "8080", "9002", "9003", "9090", "9901"]
LIMIT = 90


def steps(text):
    """Files and commands in their order: (name of a file or None, text)."""
    for language, name, block in re.findall(r"^```(yaml|sh)(?: file=(\S+))?\n(.*?)^```", text, re.M | re.S):
        assert (language == "yaml") == bool(name), f"a block of {language} with the name {name!r}"
        yield name or None, block


def main(binary):
    path = envoy.binary()
    if path is None:
        print("there is no Envoy here")
        return 77
    text = GUIDE.read_text()
    for port in PORTS:
        text = re.sub(rf"\b{port}\b", str(free_port()), text)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "bin").mkdir()
        (folder / "bin/pointsman").symlink_to(pathlib.Path(binary).resolve())
        (folder / "bin/envoy").symlink_to(path)
        script = "set -eu\n"
        for file, block in steps(text):
            if file:
                (folder / file).write_text(block)
            else:
                script += block
        # All that the commands leave running is in a group of its own, which ends with them.
        log = LOGS / "guide.log"
        environment = os.environ | {"PATH": f"{folder}/bin:{os.environ['PATH']}"}
        with log.open("wb") as out:
            shell = subprocess.Popen(["bash", "-c", script], cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                code = shell.wait(LIMIT)
            except subprocess.TimeoutExpired:
                code = f"nothing within {LIMIT} s"
            finally:
                os.killpg(shell.pid, signal.SIGKILL)
    said = log.read_text(errors="replace")
    wanted = ['"completion_tokens":8', "data: [DONE]", '"winner"']
    missing = [word for word in wanted if word not in said.replace('": ', '":')]
    if code != 0 or missing:
        print(f"FAIL {GUIDE.name}: {code}, missing {missing}:\n{said[-3000:]}\n0 passed, 1 failed")
        return 1
    print(f"PASS {GUIDE.name}\n1 passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
