"""A started execution environment."""

from __future__ import annotations

import os
import re
import signal
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from local.lambda_.function import Function
from local.reaper import Reaper

LOG_LINE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Launched:
    """The process of an execution environment, which leads a process group.

    Attributes:
        task_root: the folder that the function's code is run from.
        source: the user's folder of the same code.
        reaper: ends the process with the local run.
    """

    process: Process
    task_root: str = "/var/task"
    source: Path | None = None
    reaper: Reaper | None = None

    def terminate(self) -> None:
        """Ask it to end."""
        self.process.terminate()

    async def kill(self) -> None:
        """End it and whatever it has started."""
        with suppress(ProcessLookupError, PermissionError):  # macOS: permission, if there are only zombies
            os.killpg(self.process.pid, signal.SIGKILL)

    async def clean_up(self) -> bool:
        """Remove what the ended process has left; return whether it ran out of memory."""
        await self.kill()
        if self.reaper:
            self.reaper.release(self.process.pid)
        return False

    def localize(self, text: str) -> str:
        """Replace paths of the function's code by those of the user's files."""
        source = self.source
        if source is None or self.task_root not in text:
            return text

        def replace(path: re.Match[str]) -> str:
            file = source / path[1]
            return shown(file) if file.is_file() else path[0]

        return re.sub(rf"{re.escape(self.task_root)}/([\w./-]+)", replace, text)


# Starts `python -m awslambdaric` for a function, given its environment variables.
Launch = Callable[[Function, dict[str, str]], Awaitable[Launched]]


def shown(path: Path) -> str:
    """Return a path as the user would write it here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
