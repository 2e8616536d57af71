"""`make bench-edit`: measure how long `make up` takes to be ready, and an edited handler to answer the next message.

It runs in a copy of the project with the packages of the original. "Ready" is the time from the start of the command to
its last line, with an unchanged stack. "Edit" is the time from the writing of a file to the first answer of the new code,
while a client sends its next message as soon as it has an answer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from websockets.sync.client import connect

from local.paths import ROOT
from local.ports import find_port

SHARED = (".venv", ".local/venvs", "frontend/dist", "frontend/node_modules", "node_modules")
HANDLER = Path("images/websocket/websocket.py")
ECHO = 'echo = {"message": body}'
READY = "Ctrl-C ends everything."
START_SECONDS = 120.0
EDIT_SECONDS = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.edit_loop", description=__doc__)
    parser.add_argument(
        "--functions", choices=["process", "image"], action="append", help="how to run them; both by default"
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edit-loop-") as folder:
        copy_project(Path(folder))
        for way in arguments.functions or ["process", "image"]:
            with run_up(Path(folder), way):
                pass  # synthesizes the stack and fills the caches
            ready: list[float] = []
            edits: list[float] = []
            for _ in range(arguments.rounds):
                with run_up(Path(folder), way) as (seconds, url):
                    ready.append(seconds)
                    edits += time_edits(Path(folder), url, arguments.rounds)
            print(f"{way:8} ready {format_spread(ready)}    edit {format_spread(edits)}", flush=True)
    return 0


def copy_project(folder: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in listed.rstrip("\0").split("\0"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    for name in SHARED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(ROOT / name)


@contextmanager
def run_up(folder: Path, way: str) -> Iterator[tuple[float, str]]:
    """Run `make up` in the copy; yield the seconds until it was ready, and a URL for clients."""
    port = str(find_port(0, "--port"))
    command = [".venv/bin/python", "-m", "local"]
    options = ["--port", port, "--aws-port", "0", "--page-port", "0", "--inspector-port", "0", "--functions", way]
    started = time.monotonic()
    output = folder / "output"
    with output.open("w") as file:
        up = subprocess.Popen([*command, "up", *options], cwd=folder, stdout=file, stderr=subprocess.STDOUT)
    try:
        while READY not in output.read_text():
            if up.poll() is not None:
                raise SystemExit(output.read_text())
            time.sleep(0.01)
        seconds = time.monotonic() - started
        token = subprocess.run(
            [*command, "token", "--port", port], cwd=folder, check=True, capture_output=True, text=True
        )
        yield seconds, f"ws://127.0.0.1:{port}/prod?idToken={token.stdout.strip()}"
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(START_SECONDS)


def time_edits(folder: Path, url: str, rounds: int) -> Iterator[float]:
    """Edit the handler again and again; yield how long each edit took to answer."""
    handler = folder / HANDLER
    source = (ROOT / HANDLER).read_text()
    with connect(url, proxy=None) as client:
        for number in range(rounds):
            time.sleep(1)  # lets the last edit settle
            written = time.monotonic()
            handler.write_text(source.replace(ECHO, f'echo = {{"message": body, "edit": "{written}-{number}"}}'))
            while time.monotonic() < written + EDIT_SECONDS:
                client.send("hello")
                if json.loads(client.recv(EDIT_SECONDS)).get("edit") == f"{written}-{number}":
                    yield time.monotonic() - written
                    break
            else:
                raise SystemExit(f"the new code does not answer after {EDIT_SECONDS:.0f} s")
        handler.write_text(source)  # so that the stack is unchanged at the next start


def format_spread(seconds: list[float]) -> str:
    return f"{median(seconds):5.2f} s (at most {max(seconds):.2f} s, {len(seconds)} times)"


if __name__ == "__main__":
    sys.exit(main())
