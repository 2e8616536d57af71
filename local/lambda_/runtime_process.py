"""The process of an execution environment, and its output."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.lambda_.function import Function
from local.lambda_.invocation import InvocationResult
from local.processes import find_descendants, select_running
from local.reaper import Reaper

LOG_LINE_BYTES = 1024 * 1024


class Output:
    """A pipe for the standard output and standard error of a process.

    With asyncio's own pipe, `Process.wait` would return only after every process that holds the pipe has ended.
    """

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader(limit=LOG_LINE_BYTES)
        self._transport: asyncio.BaseTransport | None = None

    async def start(self, *command: str | Path, **options: Any) -> Process:
        """Start a process, in a process group of its own, that writes to this pipe."""
        reading, writing = os.pipe()
        protocol = asyncio.StreamReaderProtocol(self.reader)
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: protocol, os.fdopen(reading, "rb")
        )
        try:
            return await asyncio.create_subprocess_exec(
                *command, stdin=DEVNULL, stdout=writing, stderr=STDOUT, start_new_session=True, **options
            )
        except BaseException:
            self.close()
            raise
        finally:
            os.close(writing)

    async def read_lines(self) -> AsyncIterator[str]:
        """Yield each line, until every process that holds the pipe has ended."""
        while True:
            try:
                line = await self.reader.readuntil()
            except asyncio.LimitOverrunError as long:
                line = await self.reader.readexactly(long.consumed)
            except asyncio.IncompleteReadError as end:
                line = end.partial
            if not line:
                return
            yield line.decode(errors="replace").rstrip("\n")

    def close(self) -> None:
        if self._transport:
            self._transport.close()


@dataclass(frozen=True)
class RuntimeProcess:
    """The process of an execution environment. It leads a process group.

    Attributes:
        output: the pipe that the process writes to.
        task_root: the folder in which the function's code runs.
        source: the user's folder with the same code.
        reaper: kills the process when the local run ends.
        descendants: command lines, by pid, of the child processes that ran when the process got SIGTERM.
    """

    process: Process
    output: Output
    task_root: str = "/var/task"
    source: Path | None = None
    reaper: Reaper | None = None
    descendants: dict[int, str] = field(default_factory=dict, init=False)

    def terminate(self) -> None:
        """Send SIGTERM to the process."""
        self.descendants.update(find_descendants(self.process.pid))
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGTERM)  # Process.terminate() can take the exit status from asyncio

    async def kill(self) -> None:
        """Kill the process and the processes that it has started."""
        for pid in select_running({**self.descendants, **find_descendants(self.process.pid)}):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError, PermissionError):  # macOS: permission, if there are only zombies
            os.killpg(self.process.pid, signal.SIGKILL)

    async def clean_up(self) -> InvocationResult:
        """Kill the processes that the exited one has started; return how it exited, as Lambda's error."""
        await RuntimeProcess.kill(self)
        if self.reaper:
            self.reaper.release(self.process.pid)
        return InvocationResult(error="Runtime.ExitError", message=describe_exit(self.process.returncode or 0))

    def localize(self, text: str) -> str:
        """Replace the paths of the function's code by the paths of the user's files."""
        if self.source is None or self.task_root not in text:
            return text
        source = self.source

        def replace(path: re.Match[str]) -> str:
            file = source / path[1]
            return format_path(file) if file.is_file() else path[0]

        return re.sub(rf"{re.escape(self.task_root)}/([\w./-]+)", replace, text)


# Starts `python -m awslambdaric` for a function, given its environment variables.
Launch = Callable[[Function, dict[str, str]], Awaitable[RuntimeProcess]]


def describe_exit(status: int) -> str:
    """Return Lambda's message for an exit status. A negative status is the number of a signal."""
    if status == 0:
        return "Runtime exited without providing a reason"
    if status > 0:
        return f"Runtime exited with error: exit status {status}"
    name = signal.strsignal(-status) or f"signal {-status}"
    return f"Runtime exited with error: signal: {name.partition(':')[0].lower()}"  # macOS has "Killed: 9"


def format_path(path: Path) -> str:
    """Return a path relative to the current folder if it is below it, else the full path."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
