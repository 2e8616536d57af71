"""Finds the processes that a process has started, and ends them."""

from __future__ import annotations

import time
from contextlib import suppress

import psutil

END_SECONDS = 3.0
COMMAND_CHARACTERS = 120  # enough to recognize a process; the rest may be secret, such as the variables of `docker run`


def read_command(pid: int) -> str:
    """Return the start of a process's command line; an empty text if the process has ended or is a zombie."""
    try:
        return " ".join(psutil.Process(pid).cmdline())[:COMMAND_CHARACTERS]
    except psutil.Error:
        return ""


def is_running(pid: int, command: str) -> bool:
    """Return whether the process still runs. The command line tells it from a later process with the same id."""
    return read_command(pid) == command


def find_descendants(pid: int) -> dict[int, str]:
    """Return the command lines, by id, of a process's children and their descendants."""
    try:
        commands = {child.pid: read_command(child.pid) for child in psutil.Process(pid).children(recursive=True)}
    except psutil.NoSuchProcess:
        return {}
    return {child: command for child, command in commands.items() if command}


def end_processes(commands: dict[int, str]) -> dict[int, str]:
    """Wait for these processes to end, then end those that still run; return those."""
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
    """Return the processes that still run."""
    return {pid: command for pid, command in commands.items() if is_running(pid, command)}
