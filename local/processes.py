"""Processes of this machine: lists them, finds those that one has started, and ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
END_SECONDS = 3.0
COMMAND_CHARACTERS = 120  # enough to know a process again; what follows may be secret, as the variables of `docker run`


class Process(NamedTuple):
    """A process: the id of its parent, and how its command line begins."""

    parent: int
    command: str


def list_processes() -> dict[int, Process]:
    """Return all running processes by id; those without a command line, such as zombies, are none."""
    if not (PROC / "self" / "stat").exists():  # macOS
        ps = ["ps", "-A", "-ww", "-o", "pid=,ppid=,args="]
        lines = subprocess.run(ps, capture_output=True, text=True, check=False).stdout.splitlines()
        rows = [line.split(maxsplit=2) for line in lines]
        return {int(row[0]): Process(int(row[1]), row[2][:COMMAND_CHARACTERS]) for row in rows if len(row) == 3}
    found = {}
    for folder in PROC.glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            parent = int((folder / "stat").read_bytes().rpartition(b")")[2].split()[1])
            command = (folder / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
            if command:
                found[int(folder.name)] = Process(parent, command[:COMMAND_CHARACTERS])
    return found


def is_running(pid: int, command: str) -> bool:
    """Return whether the process still runs; another one that got its id later has another command line."""
    return bool(select_running({pid: command}))


def find_descendants(pid: int) -> dict[int, str]:
    """Return the command lines of the processes that this one and its children have started, by id."""
    processes = list_processes()
    found: dict[int, str] = {}
    parents = {pid}
    while parents:
        children = {id_: each.command for id_, each in processes.items() if each.parent in parents and id_ not in found}
        found |= children
        parents = set(children)
    return found


def end_processes(commands: dict[int, str]) -> dict[int, str]:
    """End those of these processes that do not end by themselves within seconds; return them."""
    wait_for_end(commands)  # a reaper may be at work
    left = select_running(commands)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in select_running(left):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        wait_for_end(left)
    return left


def wait_for_end(commands: dict[int, str]) -> None:
    deadline = time.monotonic() + END_SECONDS
    while select_running(commands) and time.monotonic() < deadline:
        time.sleep(0.05)


def select_running(commands: dict[int, str]) -> dict[int, str]:
    """Return those of these processes that run."""
    processes = list_processes()
    return {pid: command for pid, command in commands.items() if pid in processes and processes[pid].command == command}
