"""Commands and servers that are started here, and end here."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path

from ecr import ask

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30
STOP_SECONDS = 10
COMMAND_SECONDS = 300
LOG_LINES = 40


class CheckFailed(Exception):
    """A promise that was not kept."""


def run(directory: Path, *command: str, **environment: str) -> str:
    """Runs a command to its end and returns what it printed."""
    name = " ".join(word for word in command if not word.startswith("--"))
    log = directory / "command.log"
    print(f"{name} ...", end=" ", flush=True)
    began = time.monotonic()
    with process(command, log, environment) as running, suppress(subprocess.TimeoutExpired):
        running.wait(COMMAND_SECONDS)
    say(f"{time.monotonic() - began:.0f} s")
    expect(running.returncode == 0, f"{name} exited with {running.returncode}\n{tail(log)}")
    return log.read_text()


@contextmanager
def service(
    command: Sequence[str], address: str, path: str, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """A server that runs as long as the block does."""
    with process(command, log, environment or {}) as running:
        expect(answers(running, address, path), f"{command[0]} does not answer on {address}\n{tail(log)}")
        yield address


@contextmanager
def process(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A command with all that it starts: they are one process group, and end with the block at the latest."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        yield running
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGTERM)
            try:
                running.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()


def answers(running: subprocess.Popen[bytes], address: str, path: str) -> bool:
    """Waits until the server answers; False if it ends or takes too long."""
    give_up = time.monotonic() + START_SECONDS
    while running.poll() is None and time.monotonic() < give_up:
        with suppress(OSError):
            if ask(address, "GET", path).status == HTTPStatus.OK:
                return True
        time.sleep(0.1)
    return False


def docker(*arguments: str) -> str:
    ran = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    expect(ran.returncode == 0, f"docker {' '.join(arguments)}: {ran.stderr.strip()}")
    return ran.stdout.strip()


def tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:]) if log.exists() else ""


def expect(promise: object, otherwise: str) -> None:
    if not promise:
        raise CheckFailed(otherwise)


def expect_equal(what: str, found: object, expected: object) -> None:
    expect(found == expected, f"{what}: {found}, expected {expected}")


def say(text: str) -> None:
    print(text, flush=True)
