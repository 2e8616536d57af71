"""Runs functions in the images that bake builds."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from local.errors import LaunchError
from local.lambda_.function import Function
from local.lambda_.invocation import Invocation
from local.lambda_.launched import Launch, Launched, Output, describe_exit
from local.paths import ROOT
from local.reaper import Reaper

LABEL = f"local-run={uuid.uuid4()}"  # on every container of this run
SIGNALLED = 128  # exit status of `docker run` after a signal, minus the signal


@dataclass(frozen=True)
class Container(Launched):
    """A container and the `docker run` that attends it, which passes SIGTERM on."""

    name: str = ""
    memory_mb: int = 0

    async def kill(self) -> None:
        await self._docker("rm", "--force", self.name)
        await super().kill()

    async def clean_up(self) -> Invocation:
        out_of_memory = await self._docker("inspect", "--format={{.State.OOMKilled}}", self.name) == "true\n"
        await self._docker("rm", "--force", self.name)
        end = await super().clean_up()
        status = self.process.returncode or 0
        if out_of_memory:
            limit = f"it used all of its memory, MemorySize is {self.memory_mb} MB"
            return Invocation(error="Runtime.OutOfMemory", message=f"{describe_exit(-signal.SIGKILL)}: {limit}")
        if status > SIGNALLED:
            return dataclasses.replace(end, message=describe_exit(SIGNALLED - status))
        return end

    @staticmethod
    async def _docker(*arguments: str) -> str:
        docker = await asyncio.create_subprocess_exec("docker", *arguments, stdout=PIPE, stderr=DEVNULL)
        return (await docker.communicate())[0].decode()


class Containers:
    """The built images, as Lambda runs them: read-only, with /tmp, as their own user.

    They share the host's network, so that nothing local has to listen beyond the loopback interface.
    """

    name = "images"

    def __init__(self, mounts: Sequence[Path] = (), *, source: Path = ROOT / "images") -> None:
        """Mount these files at their own paths; `source` has the user's folder of each target."""
        self._mounts = mounts
        self._source = source
        self._reaper = Reaper(label=LABEL)

    async def prepare(self, targets: set[str]) -> dict[str, Launch]:
        """Build the images of these targets; return how to launch each, whatever is built later.

        Raises:
            LaunchError: there is no docker command, or the last line of its complaint.
        """
        ids = await self._bake(targets)
        return {target: partial(self._launch, ids[target]) for target in targets}

    async def stop(self) -> None:
        """Remove the containers of this run that are left."""
        await self._reaper.stop()

    async def _bake(self, targets: set[str]) -> dict[str, str]:
        """Return the image's ID of each target."""
        if shutil.which("docker") is None:
            raise LaunchError("docker buildx bake: there is no docker command")
        with tempfile.TemporaryDirectory() as folder:
            metadata = Path(folder) / "metadata.json"
            bake = ("buildx", "bake", "--load", f"--metadata-file={metadata}", *sorted(targets))
            process = await asyncio.create_subprocess_exec(
                "docker", *bake, cwd=ROOT, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, start_new_session=True
            )
            self._reaper.watch(process.pid)
            try:
                _, complaint = await process.communicate()
            finally:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)  # if the local run ends before the build
                self._reaper.release(process.pid)
            if process.returncode != 0:
                raise LaunchError(f"docker buildx bake: {complaint.decode(errors='replace').strip().splitlines()[-1]}")
            built = json.loads(metadata.read_text())
        return {target: built[target]["containerimage.config.digest"] for target in targets}

    async def _launch(self, image: str, function: Function, variables: dict[str, str]) -> Launched:
        name = f"local-{function.target}-{uuid.uuid4().hex[:8]}"
        memory = max(function.memory_mb, 128)
        output = Output()
        process = await output.start(
            "docker",
            "run",
            "--init",
            "--read-only",
            "--tmpfs=/tmp",
            "--network=host",
            f"--label={LABEL}",
            f"--name={name}",
            f"--memory={memory}m",
            f"--memory-swap={memory}m",
            *(f"--volume={path}:{path}:ro" for path in self._mounts),
            *(word for variable, value in variables.items() for word in ("--env", f"{variable}={value}")),
            image,
        )
        self._reaper.watch(process.pid)
        return Container(process, output, "/var/task", self._source / function.target, self._reaper, name, memory)


def has_engine() -> bool:
    """Return whether a Docker engine with buildx answers."""
    if shutil.which("docker") is None:
        return False
    commands = (["docker", "info"], ["docker", "buildx", "version"])
    return all(subprocess.run(command, capture_output=True, check=False).returncode == 0 for command in commands)
