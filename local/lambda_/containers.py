"""Runs functions in the images that bake builds."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from asyncio.subprocess import DEVNULL, PIPE
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from local.errors import LaunchError
from local.lambda_.function import Function
from local.lambda_.invocation import InvocationResult
from local.lambda_.runtime_process import Launch, Output, RuntimeProcess, describe_exit, format_path
from local.paths import ROOT
from local.reaper import Reaper

LABEL = f"local-run={uuid.uuid4()}"  # on every container of this run
SIGNALLED = 128  # after a signal, `docker run` exits with this plus the signal's number
REGISTRY_SECONDS = 15.0
DOCKER_SECONDS = 20.0
COMPLAINT_LINES = 8
BASE_ADVICE = "the base image cannot be pulled: connect to its registry, or set BASE_IMAGE to an image that is here"
CONNECT = """
import socket
try:
    socket.create_connection(ADDRESS, timeout=5)
except OSError:
    print("unreachable")
"""


@dataclass(frozen=True)
class Container(RuntimeProcess):
    """A container, and the process of `docker run`, which forwards SIGTERM to the container."""

    name: str = ""
    memory_mb: int = 0

    async def kill(self) -> None:
        await run_docker("rm", "--force", self.name)
        await super().kill()

    async def clean_up(self) -> InvocationResult:
        out_of_memory = await run_docker("inspect", "--format={{.State.OOMKilled}}", self.name) == "true\n"
        await run_docker("rm", "--force", self.name)
        end = await super().clean_up()
        status = self.process.returncode or 0
        if out_of_memory:
            limit = f"it used all of its memory, MemorySize is {self.memory_mb} MB"
            return InvocationResult(error="Runtime.OutOfMemory", message=f"{describe_exit(-signal.SIGKILL)}: {limit}")
        if status > SIGNALLED:
            return dataclasses.replace(end, message=describe_exit(SIGNALLED - status))
        return end


class Containers:
    """Builds images and runs functions in them as Lambda does: read-only except /tmp, as the image's own user.

    Containers share the host's network, so that local servers listen on the loopback interface only.
    """

    name = "images"

    def __init__(self, mounts: Sequence[Path] = (), *, source: Path = ROOT / "images") -> None:
        """Run containers with these files mounted at the same path.

        Args:
            mounts: the files.
            source: the folder of the functions' sources, one folder for each bake target.
        """
        self._mounts = mounts
        self._source = source
        self._images: dict[str, str] = {}  # image ids by target
        self._replaced: set[str] = set()
        self._reaper = Reaper(label=LABEL)

    async def prepare(self, targets: set[str]) -> dict[str, Launch]:
        """Build the images of these targets; return what launches each. A launch keeps its image after later builds.

        Raises:
            LaunchError: the images cannot be built, or their containers cannot reach this process.
        """
        try:
            images = await self._bake(targets)
            if not self._images:
                await self._check_network(next(iter(images.values())))
        except BaseException:
            if not self._images:
                await self._reaper.stop()
            raise
        self._replaced |= {*self._images.values()}
        self._images |= images
        return {target: partial(self._launch, image) for target, image in images.items()}

    async def stop(self) -> None:
        """Remove the containers of this run, and the images that were replaced by later builds."""
        await self._reaper.stop()
        if replaced := self._replaced - {*self._images.values()}:
            unnamed = await run_docker("image", "ls", "--quiet", "--no-trunc", "--filter=dangling=true")
            await run_docker("image", "rm", *replaced.intersection(unnamed.split()))

    async def _bake(self, targets: set[str]) -> dict[str, str]:
        """Build the images of these targets; return the image ids by target."""
        if shutil.which("docker") is None:
            raise LaunchError("docker buildx bake: there is no docker command")
        with tempfile.TemporaryDirectory() as folder:
            metadata = Path(folder) / "metadata.json"
            bake = ("buildx", "bake", "--load", "--progress=plain", f"--metadata-file={metadata}", *sorted(targets))
            output = Output()
            process = await output.start("docker", *bake, cwd=ROOT)
            self._reaper.watch(process.pid)
            try:
                complaint = await read_build_error(output)
                status = await process.wait()
            finally:
                output.close()
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)  # if the local run ends before the build
                self._reaper.release(process.pid)
            if status != 0:
                raise LaunchError(f"docker buildx bake: {self._localize(complaint)}")
            built = json.loads(metadata.read_text())
        return {target: await find_image_id(built[target]) for target in targets}

    def _localize(self, text: str) -> str:
        """Replace the paths of handlers in an image by the paths of the user's files."""

        def replace(path: re.Match[str]) -> str:
            file = self._source / path[1] / f"{path[1]}.py"
            return format_path(file) if file.is_file() else path[0]

        return re.sub(r"(?:/out/)?var/task/(\w+)\.py", replace, text)

    async def _check_network(self, image: str) -> None:
        """Raise LaunchError if a container cannot connect to this process. An image without Python is not checked."""
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            address = str(server.sockets[0].getsockname())
            run = ("run", "--rm", "--network=host", f"--label={LABEL}", "--entrypoint=python", image)
            answer = await run_docker(*run, "-ISc", CONNECT.replace("ADDRESS", address))
        if answer.strip() == "unreachable":
            reason = "the containers cannot reach this machine's 127.0.0.1, because the engine runs elsewhere"
            raise LaunchError(
                f"{reason}, such as in a virtual machine. Enable host networking in the engine's settings if it has "
                "that (Docker Desktop has), or run the functions as processes: --functions process"
            )

    async def _launch(self, image: str, function: Function, variables: dict[str, str]) -> RuntimeProcess:
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


async def read_build_error(output: Output) -> str:
    """Read a build's output; return what the failed step has printed, or the build's last line.

    If the base image is missing, add advice.

    Raises:
        LaunchError: a registry does not answer in time; BuildKit would wait for minutes.
    """
    last, asked = "", dict[str, str]()  # `asked`: base images by the build step that waits for a registry
    printed: defaultdict[str, list[str]] = defaultdict(list)  # by step
    failed: list[str] = []
    lines = output.read_lines()
    while True:
        try:
            async with asyncio.timeout(REGISTRY_SECONDS if asked else None):
                line = await anext(lines, None)
        except TimeoutError:
            base = ", ".join(asked.values())
            reason = f"the registry of {base} has not answered for {REGISTRY_SECONDS:.0f} s"
            raise LaunchError(f"docker buildx bake: {reason}; {BASE_ADVICE}") from None
        if line is None:
            break
        last = line.strip() or last
        if found := re.match(r"(#\d+) \d+\.\d+ (.*\S)", line):
            printed[found[1]].append(found[2])
        elif found := re.match(r"(#\d+) ERROR", line):
            failed = printed[found[1]]
        if found := re.match(r"(#\d+) .*load metadata for (\S+)", line):
            asked[found[1]] = found[2]
        elif found := re.match(r"(#\d+) (?:DONE|ERROR|CANCELED|CACHED)", line):
            asked.pop(found[1], None)
    if "failed to resolve source metadata" in last:
        return f"{last}; {BASE_ADVICE}"
    return "\n".join(failed[-COMPLAINT_LINES:]) or last


async def find_image_id(built: dict[str, str]) -> str:
    """Return the engine's id of a built image. With containerd's image store, it is not the config digest."""
    inspected = await run_docker("image", "inspect", "--format={{.Id}}", built.get("image.name", ""))
    return inspected.strip() or built["containerimage.config.digest"]


async def run_docker(*arguments: str) -> str:
    """Run a docker command; return what it prints, or an empty text if it cannot run or takes too long."""
    try:
        docker = await asyncio.create_subprocess_exec("docker", *arguments, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL)
    except OSError:
        return ""
    try:
        return (await asyncio.wait_for(docker.communicate(), DOCKER_SECONDS))[0].decode()
    except TimeoutError:
        docker.kill()
        return ""


def has_engine() -> bool:
    """Return whether a Docker engine with buildx answers."""
    if shutil.which("docker") is None:
        return False
    commands = (["docker", "info"], ["docker", "buildx", "version"])
    try:
        ran = [subprocess.run(each, capture_output=True, check=False, timeout=DOCKER_SECONDS) for each in commands]
    except subprocess.TimeoutExpired:
        return False
    return all(each.returncode == 0 for each in ran)
