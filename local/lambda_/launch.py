"""The two ways to start an execution environment: a plain process, or the built image."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import uuid
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from local.errors import LaunchError
from local.lambda_.function import Function
from local.paths import ROOT, VENVS

LOG_LINE_BYTES = 1024 * 1024
LABEL = f"local-run={uuid.uuid4()}"  # on every container of this run


@dataclass(frozen=True)
class Launched:
    """A started execution environment: its process, or `docker run` and the container that it attends."""

    process: Process
    container: str | None = None

    def terminate(self) -> None:
        """Asks it to end; `docker run` passes that on."""
        self.process.terminate()

    async def kill(self) -> None:
        """Ends it and whatever it has started."""
        if self.container:
            remove = ("docker", "rm", "--force", self.container)
            await (await asyncio.create_subprocess_exec(*remove, stdout=DEVNULL, stderr=DEVNULL)).wait()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


async def process(function: Function, environment: dict[str, str], *, source: Path = ROOT / "images") -> Launched:
    """awslambdaric from an environment made of the image's own locked requirements.

    `source` is the folder with a folder of handler and requirements for each bake target.
    """
    task_root = source / function.target
    return Launched(
        await asyncio.create_subprocess_exec(
            VENVS / function.target / "bin" / "python",
            "-m",
            "awslambdaric",
            f"{function.target}.handler",
            cwd=task_root,
            env={"PATH": os.defpath, "LAMBDA_TASK_ROOT": str(task_root), "PYTHONDONTWRITEBYTECODE": "1", **environment},
            stdout=PIPE,
            stderr=STDOUT,
            limit=LOG_LINE_BYTES,
            start_new_session=True,  # Ctrl-C is for us: the functions still have `$disconnect` to run
        )
    )


async def image(function: Function, environment: dict[str, str]) -> Launched:
    """The image that bake built, as Lambda runs it: read-only, with /tmp, as its own user.

    It shares the host's network, so that nothing local has to listen beyond the loopback interface.
    """
    variables = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
    container = f"local-{function.target}-{uuid.uuid4().hex[:8]}"
    docker_run = await asyncio.create_subprocess_exec(
        "docker",
        "run",
        "--rm",
        "--init",
        "--read-only",
        "--tmpfs=/tmp",
        "--network=host",
        f"--label={LABEL}",
        f"--name={container}",
        f"--memory={max(function.memory_mb, 128)}m",
        *variables,
        f"{function.target}:{os.environ.get('TAG', 'dev')}",
        stdout=PIPE,
        stderr=STDOUT,
        limit=LOG_LINE_BYTES,
        start_new_session=True,
    )
    return Launched(docker_run, container)


def remove_containers() -> None:
    """Removes those of this run whose `docker run` ended before the engine had started them."""
    listed = subprocess.run(
        ["docker", "ps", "--all", "--quiet", f"--filter=label={LABEL}"], capture_output=True, text=True, check=False
    )
    if left := listed.stdout.split():
        subprocess.run(["docker", "rm", "--force", *left], capture_output=True, check=False)


def check_processes(targets: set[str], source: Path) -> None:
    for target in targets:
        if not (source / target / f"{target}.py").exists():
            raise LaunchError(f"{source / target / target}.py is missing, the handler of bake target {target}")
        if not (VENVS / target / "bin" / "python").exists():
            raise LaunchError(f"{VENVS.relative_to(ROOT) / target} is missing: run `make setup`")


def has_engine() -> bool:
    """Whether a Docker engine with buildx answers."""
    if shutil.which("docker") is None:
        return False
    commands = (["docker", "info"], ["docker", "buildx", "version"])
    return all(subprocess.run(command, capture_output=True, check=False).returncode == 0 for command in commands)


def build_images(targets: set[str]) -> None:
    """`docker buildx bake`; LaunchError has the last line of its complaint."""
    if shutil.which("docker") is None:
        raise LaunchError("docker buildx bake: there is no docker command")
    bake = ["docker", "buildx", "bake", "--load", *sorted(targets)]
    built = subprocess.run(bake, cwd=ROOT, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise LaunchError(f"docker buildx bake: {built.stderr.strip().splitlines()[-1]}")
