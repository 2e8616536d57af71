"""Cleans up after this process when it ends, even by SIGKILL or because its terminal is closed.

A second process does it. It reads from a pipe, which the kernel closes when the first process ends.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

DOCKER_SECONDS = 20.0


class Reaper:
    """Kills process groups, and removes folders and the containers with a label, when this process ends."""

    def __init__(self, *folders: Path, label: str = "") -> None:
        self._arguments = [label, *map(str, folders)]
        self._process: subprocess.Popen[str] | None = None

    def watch(self, pid: int) -> None:
        """Kill the process group that `pid` leads when the local run ends, unless `release` is called before."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # a Ctrl-C or a closed terminal must not end this process
            )
        self._tell(f"+{pid}")

    def release(self, pid: int) -> None:
        """Forget a process that has ended."""
        self._tell(f"-{pid}")

    async def stop(self) -> None:
        """End the processes and remove containers and folders now."""
        if process := self._process:
            self._process = None
            await asyncio.to_thread(process.communicate)
        else:
            await asyncio.to_thread(reap, (), "", self._arguments[1:])

    def _tell(self, line: str) -> None:
        if self._process and self._process.stdin:
            with suppress(BrokenPipeError):  # the second process was killed
                print(line, file=self._process.stdin, flush=True)


def reap(lines: Iterable[str], label: str, folders: list[str]) -> None:
    """Read `+pid` and `-pid` until the input ends; then kill the remaining groups, and remove containers and folders."""
    pids: set[int] = set()
    for line in lines:
        (pids.add if line.startswith("+") else pids.discard)(int(line[1:]))
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    if label:
        with suppress(FileNotFoundError, subprocess.TimeoutExpired):
            if left := run_docker("ps", "--all", "--quiet", f"--filter=label={label}"):
                run_docker("rm", "--force", *left)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def run_docker(*arguments: str) -> list[str]:
    """Run a docker command; return the words that it prints."""
    ran = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=DOCKER_SECONDS)
    return ran.stdout.split()


if __name__ == "__main__":
    reap(sys.stdin, sys.argv[1], sys.argv[2:])
