"""A guard that keeps these tests fast: none of them starts a process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

STARTS = {"subprocess.Popen", "os.fork", "os.posix_spawn", "os.system"}
running: list[str] = []  # the test that runs, if one does


def refuse_processes(event: str, arguments: tuple[Any, ...]) -> None:
    if event in STARTS and running:
        raise AssertionError(f"{running[0]} starts a process ({event}): move it to tests/local or tests/container")


sys.addaudithook(refuse_processes)  # cannot be removed, so it looks whether a unit test runs


@pytest.fixture(autouse=True)
def no_process(request: pytest.FixtureRequest) -> Iterator[None]:
    running.append(request.node.nodeid)
    yield
    running.clear()
