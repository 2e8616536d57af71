"""A started execution environment."""

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
from local.lambda_.invocation import Invocation
from local.processes import find_descendants, select_running
from local.reaper import Reaper

LOG_LINE_BYTES = 1024 * 1024


class Output:
    """The standard output and standard error of a process.

    With asyncio's own pipe, `Process.wait` returns only when every process that holds the pipe has ended.
    """

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader(limit=LOG_LINE_BYTES)
        self._transport: asyncio.BaseTransport | None = None

    async def start(self, *command: str | Path, **options: Any) -> Process:
        """Start a process group that writes here."""
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
    """The process of an execution environment, which leads a process group.

    Attributes:
        output: what the process writes.
        task_root: the folder that the function's code is run from.
        source: the user's folder of the same code.
        reaper: ends the process with the local run.
        descendants: the command lines of the processes that it had started when it was asked to end, by id.
    """

    process: Process
    output: Output
    task_root: str = "/var/task"
    source: Path | None = None
    reaper: Reaper | None = None
    descendants: dict[int, str] = field(default_factory=dict, init=False)

    def terminate(self) -> None:
        """Ask it to end."""
        self.descendants.update(find_descendants(self.process.pid))
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGTERM)  # Process.terminate() can take the exit status from asyncio

    async def kill(self) -> None:
        """End it and the processes that it has started."""
        for pid in select_running({**self.descendants, **find_descendants(self.process.pid)}):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError, PermissionError):  # macOS: permission, if there are only zombies
            os.killpg(self.process.pid, signal.SIGKILL)

    async def clean_up(self) -> Invocation:
        """End the processes that the ended one has started; return how it ended as an error, in Lambda's words."""
        await RuntimeProcess.kill(self)
        if self.reaper:
            self.reaper.release(self.process.pid)
        return Invocation(error="Runtime.ExitError", message=describe_exit(self.process.returncode or 0))

    def localize(self, text: str) -> str:
        """Replace paths of the function's code by those of the user's files."""
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
    """Return Lambda's words for an exit status, which is negative for a signal."""
    if status == 0:
        return "Runtime exited without providing a reason"
    if status > 0:
        return f"Runtime exited with error: exit status {status}"
    name = signal.strsignal(-status) or f"signal {-status}"
    return f"Runtime exited with error: signal: {name.partition(':')[0].lower()}"  # macOS has "Killed: 9"


def format_path(path: Path) -> str:
    """Return a path as the user would write it here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
