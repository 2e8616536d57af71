"""A guard that keeps these tests fast: none of them starts a process."""

from __future__ import annotations

import sys
from typing import Any

import pytest

STARTS = {"subprocess.Popen", "os.fork", "os.posix_spawn", "os.system"}
running: list[str] = []  # the test that runs, if one of these does


def refuse_processes(event: str, arguments: tuple[Any, ...]) -> None:
    if event in STARTS and running:
        raise AssertionError(f"{running[0]} starts a process ({event}): move it to tests/local or tests/container")


sys.addaudithook(refuse_processes)  # no hook can be removed, so this one looks whether such a test runs


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    running.append(item.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    """Before fixtures end: those of the session, which may start processes, end with the last test."""
    running.clear()
