"""The curl lines of docs/functions.md, executed exactly as they stand there."""

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


def bash(command: str) -> str:
    ran = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


@contextmanager
def up() -> Iterator[None]:
    """`make up` in another terminal."""
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


def answers(block: str) -> list[Any]:
    """Runs a block line by line; returns what its invocations answer, and leaves no container behind."""
    invoked, containers = [], []
    try:
        for command in block.replace("\\\n", " ").splitlines():
            printed = bash(command)
            if command.startswith("docker run"):
                containers.append(printed.strip())
            if INVOCATIONS in command:
                invoked.append(json.loads(printed))
    finally:
        for container in containers:
            docker("rm", "--force", container)
    return invoked


@pytest.mark.usefixtures("images")
def test_curl_lines_are_answered_as_the_page_shows() -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "functions.md").read_text())
    assert "docker buildx bake rie\n" in blocks  # which the fixture has done

    invocations = [(block, shown) for block, shown in pairwise(blocks) if INVOCATIONS in block]

    assert invocations
    for block, shown in invocations:
        with up() if UP in block else nullcontext():
            assert answers(block) == [json.loads(line) for line in shown.splitlines()]
