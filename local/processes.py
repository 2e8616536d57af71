"""Processes of this machine: finds those that one has started, and ends them."""

from __future__ import annotations

import time
from contextlib import suppress

import psutil

END_SECONDS = 3.0
COMMAND_CHARACTERS = 120  # enough to know a process again; what follows may be secret, as the variables of `docker run`


def read_command(pid: int) -> str:
    """Return how the command line of a process begins; empty if it has ended, also if it is a zombie."""
    try:
        return " ".join(psutil.Process(pid).cmdline())[:COMMAND_CHARACTERS]
    except psutil.Error:
        return ""


def is_running(pid: int, command: str) -> bool:
    """Return whether the process still runs; another one that got its id later has another command line."""
    return read_command(pid) == command


def find_descendants(pid: int) -> dict[int, str]:
    """Return the command lines of the processes that this one and its children have started, by id."""
    try:
        commands = {child.pid: read_command(child.pid) for child in psutil.Process(pid).children(recursive=True)}
    except psutil.NoSuchProcess:
        return {}
    return {child: command for child, command in commands.items() if command}


def end_processes(commands: dict[int, str]) -> dict[int, str]:
    """End those of these processes that do not end by themselves within seconds; return them."""
    wait_for_end(commands)  # a reaper may be at work
    left = select_running(commands)
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for pid in select_running(left):
            with suppress(psutil.Error):
                end(psutil.Process(pid))
        wait_for_end(left)
    return left


def wait_for_end(commands: dict[int, str]) -> None:
    deadline = time.monotonic() + END_SECONDS
    while select_running(commands) and time.monotonic() < deadline:
        time.sleep(0.05)


def select_running(commands: dict[int, str]) -> dict[int, str]:
    """Return those of these processes that run."""
    return {pid: command for pid, command in commands.items() if is_running(pid, command)}
