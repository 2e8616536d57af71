"""Run the curl lines of docs/functions.md exactly as they are written there."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import Any

import pytest

from tests.fixtures import ROOT
from tests.fixtures.emulator import INVOCATIONS, PATIENCE_SECONDS
from tests.fixtures.engine import docker

UP = "127.0.0.1:4511"  # the local AWS of `make up`
BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_bash(command: str) -> str:
    ran = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


@contextmanager
def run_up() -> Iterator[None]:
    """Run `make up` until the block ends."""
    python = ROOT / ".venv" / "bin" / "python"
    running = subprocess.Popen(
        [python, "-m", "local", "up", "--functions=process"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert running.stdout
    try:
        assert any("Ctrl-C" in line for line in running.stdout), running.returncode
        yield
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=PATIENCE_SECONDS)


def run_block(block: str) -> list[Any]:
    """Run a block line by line; return the answers of its invocations, and remove its containers."""
    invoked, containers = [], []
    try:
        for command in block.replace("\\\n", " ").splitlines():
            printed = run_bash(command)
            if command.startswith("docker run"):
                containers.append(printed.strip())
            if INVOCATIONS in command:
                invoked.append(json.loads(printed))
    finally:
        for container in containers:
            docker("rm", "--force", container)
    return invoked


@pytest.mark.usefixtures("images")
def test_curl_lines_get_the_answers_in_the_document() -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "functions.md").read_text())
    assert "docker buildx bake rie\n" in blocks  # the fixture has run it

    invocations = [(block, shown) for block, shown in pairwise(blocks) if INVOCATIONS in block]

    assert invocations
    for block, shown in invocations:
        with run_up() if UP in block else nullcontext():
            assert run_block(block) == [json.loads(line) for line in shown.splitlines()]
