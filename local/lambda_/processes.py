"""Runs functions as plain processes, each from a snapshot of its source."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import uuid
from functools import partial
from pathlib import Path

from local.errors import LaunchError
from local.lambda_.function import Function
from local.lambda_.runtime_process import Launch, Output, RuntimeProcess
from local.paths import ROOT, VENVS
from local.reaper import Reaper

# The variables that the image sets on Lambda, except LD_LIBRARY_PATH: this machine's Python would load other libraries.
IMAGE = {"LANG": "en_US.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin:/opt/bin", "PYTHONDONTWRITEBYTECODE": "1"}


class Processes:
    """Runs functions by awslambdaric, in virtual environments with the images' own locked requirements."""

    name = "processes"

    def __init__(self, source: Path, snapshots: Path) -> None:
        """Run snapshots of the sources.

        Args:
            source: the folder of the functions' sources, one folder for each bake target.
            snapshots: the folder for the snapshots, which `stop` removes.
        """
        self._source = source
        self._snapshots = snapshots.resolve() / uuid.uuid4().hex  # paths in stack traces have no symbolic links
        self._reaper = Reaper(self._snapshots)

    async def prepare(self, targets: set[str]) -> dict[str, Launch]:
        """Copy the sources of these targets; return what launches each target from its copy.

        Raises:
            LaunchError: a handler or a virtual environment is missing, or a file cannot be copied.
        """
        for target in sorted(targets):
            if not (self._source / target / f"{target}.py").exists():
                raise LaunchError(
                    f"{self._source / target / target}.py is missing, the handler of bake target {target}"
                )
            if not (VENVS / target / "bin" / "python").exists():
                folder = VENVS.relative_to(ROOT) / target
                raise LaunchError(f"{folder}, with the packages of {target}, is missing: run `make {folder}/stamp`")
        self._snapshots.mkdir(parents=True, exist_ok=True)
        return {target: partial(self._launch, await asyncio.to_thread(self._copy, target)) for target in targets}

    async def stop(self) -> None:
        """End the processes and remove the snapshots."""
        await self._reaper.stop()

    def _copy(self, target: str) -> Path:
        source, copy = self._source / target, Path(tempfile.mkdtemp(prefix=f"{target}-", dir=self._snapshots))
        try:  # an editor's lock file may be a dangling link
            shutil.copytree(source, copy, ignore=list_ignored, ignore_dangling_symlinks=True, dirs_exist_ok=True)
        except shutil.Error as error:
            reasons = "; ".join(f"{file}: {reason}" for file, _, reason in error.args[0])
            raise LaunchError(f"{source} cannot be copied: {reasons}") from error
        except OSError as error:
            raise LaunchError(f"{source} cannot be copied: {error}") from error
        return copy

    async def _launch(self, snapshot: Path, function: Function, variables: dict[str, str]) -> RuntimeProcess:
        output = Output()
        process = await output.start(
            VENVS / function.target / "bin" / "python",
            "-m",
            "awslambdaric",
            f"{function.target}.handler",
            cwd=snapshot,
            env={**IMAGE, **variables, "LAMBDA_TASK_ROOT": str(snapshot)},
        )
        self._reaper.watch(process.pid)
        return RuntimeProcess(process, output, str(snapshot), self._source / function.target, self._reaper)


def list_ignored(folder: str, names: list[str]) -> list[str]:
    """Return the files of a folder that are not copied: caches, sockets, pipes, and links to a folder above."""
    here = Path(folder)
    return [
        name
        for name in names
        if name == "__pycache__"
        or (here / name).is_socket()
        or (here / name).is_fifo()
        or ((here / name).is_symlink() and here.resolve().is_relative_to((here / name).resolve()))
    ]
