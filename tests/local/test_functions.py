"""The functions of a run: in images or as processes, and reloaded when files change."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from local import paths
from local.errors import LaunchError
from local.functions import Functions, LaunchMode
from local.progress import Progress
from local.reload import Reloader
from local.system import Options, System
from tests.fixtures.apis import AUTHORIZER_ARN, WEBSOCKET_ARN, function

ARNS = {"authorizer": AUTHORIZER_ARN, "websocket": WEBSOCKET_ARN}
HANDLER = "def handler(event, context):\n    return {!r}\n"

# Engines, as `docker` commands.
ANSWERS = 'case "$1 $2" in "info "|"buildx version") exit 0;; esac'
FAILS = f"{ANSWERS}; echo 'ERROR: no such base' >&2; exit 1"
RUNS_ELSEWHERE = """
case "$1 $2" in
"buildx bake") for word in "$@"; do case $word in --metadata-file=*) echo 'METADATA' > "${word#*=}";; esac; done;;
"run --rm") echo unreachable;;
esac
""".replace("METADATA", '{"websocket": {"containerimage.config.digest": "sha256:1"}}')


@dataclass(frozen=True)
class Machine:
    """A machine with functions' sources, a `docker` command, and the functions that were started."""

    images: Path
    docker: Path
    started: list[Functions]

    def handler(self, target: str = "websocket") -> Path:
        return self.images / target / f"{target}.py"

    def write(self, answer: str, target: str = "websocket") -> None:
        self.handler(target).parent.mkdir(parents=True, exist_ok=True)
        self.handler(target).write_text(HANDLER.format(answer))

    def install_docker(self, script: str) -> None:
        self.docker.write_text(f"#!/bin/sh\n{script}\n")
        self.docker.chmod(0o755)

    async def start(self, mode: LaunchMode, *targets: str) -> str:
        """Start functions, or the websocket function alone; return what the step of `make up` shows."""
        functions = Functions(mode=mode, source=self.images, environments=1, mounts=[])
        self.started.append(functions)
        described = {ARNS[target]: function(arn=ARNS[target], target=target) for target in targets or ["websocket"]}
        return await functions.start(described, lambda _: {})

    async def ask(self, target: str = "websocket") -> object:
        """Return the answer of a running function."""
        return (await self.started[-1].invoke(ARNS[target], {})).answer


@pytest.fixture
async def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Machine]:
    """A machine without Docker until a test installs one."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(paths, "STATE", tmp_path / "state")
    machine = Machine(tmp_path / "images", programs / "docker", [])
    for target in ARNS:
        machine.write("first", target)
    yield machine
    for functions in machine.started:
        await functions.stop()


# Images or processes


@pytest.mark.parametrize("script", [None, "exit 1"], ids=["no docker", "no engine"])
async def test_functions_run_as_processes_where_there_is_no_engine(machine: Machine, script: str | None) -> None:
    if script:
        machine.install_docker(script)

    assert await machine.start("auto") == "websocket as processes, because no Docker engine answers"
    assert await machine.ask() == "first"


@pytest.mark.parametrize(
    ("script", "reason"),
    [(FAILS, "ERROR: no such base"), (RUNS_ELSEWHERE, "cannot reach this machine's 127.0.0.1")],
    ids=["failed build", "engine elsewhere"],
)
async def test_functions_whose_images_cannot_be_used_run_as_processes_and_the_log_says_why(
    machine: Machine, caplog: pytest.LogCaptureFixture, script: str, reason: str
) -> None:
    machine.install_docker(script)

    shown = await machine.start("auto")

    assert shown == "websocket as processes, the images could not be built: the log says why"
    (logged,) = [record.getMessage() for record in caplog.records if record.name == "local.functions"]
    assert logged.startswith("the images could not be built, so the functions run as plain processes: ")
    assert reason in logged
    assert await machine.ask() == "first"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "there is no docker command"),
        (FAILS, "ERROR: no such base"),
        (RUNS_ELSEWHERE, r"cannot reach this machine's 127\.0\.0\.1"),
    ],
    ids=["no docker", "failed build", "engine elsewhere"],
)
async def test_required_images_that_cannot_be_used_are_an_error(
    machine: Machine, script: str | None, reason: str
) -> None:
    if script:
        machine.install_docker(script)

    with pytest.raises(LaunchError, match=reason):
        await machine.start("image")


async def test_process_mode_needs_no_engine(machine: Machine) -> None:
    machine.install_docker(f'echo "$@" >> {machine.docker.parent}/calls')

    assert await machine.start("process") == "websocket as processes"
    assert not (machine.docker.parent / "calls").exists()


async def test_functions_that_fell_back_to_processes_are_reloaded_as_processes(machine: Machine) -> None:
    machine.install_docker(FAILS)
    await machine.start("auto")

    machine.write("second")
    await machine.started[-1].reload({"websocket"})

    assert await machine.ask() == "second"


# Changed files


class Edits:
    """A running authorizer and websocket function, changes of their files, and the terminal's output."""

    def __init__(self, machine: Machine) -> None:
        self.printed = io.StringIO()
        system = cast("System", SimpleNamespace(functions=machine.started[-1]))
        self._reload = Reloader(system, Options(images=machine.images), Progress(self.printed))

    async def apply(self, *files: Path) -> None:
        """Apply these changed files at once."""
        await self._reload.apply_code({*files})


@pytest.fixture
async def edits(machine: Machine) -> Edits:
    await machine.start("process", "authorizer", "websocket")
    return Edits(machine)


async def test_changed_requirements_of_a_process_ask_for_a_restart(machine: Machine, edits: Edits) -> None:
    await edits.apply(machine.handler().with_name("requirements.txt"))

    assert edits.printed.getvalue() == (
        "The requirements of websocket have changed: press Ctrl-C and run `make up` again, which installs them.\n"
    )
    assert await machine.ask() == "first"


async def test_other_function_is_reloaded_although_requirements_have_changed(machine: Machine, edits: Edits) -> None:
    machine.write("second", "authorizer")

    await edits.apply(machine.handler("authorizer"), machine.handler().with_name("requirements.txt"))

    assert "The requirements of websocket have changed" in edits.printed.getvalue()
    assert "✓ authorizer reloaded" in edits.printed.getvalue()
    assert await machine.ask("authorizer") == "second"


async def test_later_edit_is_reloaded_although_requirements_have_changed(machine: Machine, edits: Edits) -> None:
    await edits.apply(machine.handler().with_name("requirements.txt"))
    machine.write("second")

    await edits.apply(machine.handler())

    assert await machine.ask() == "second"


async def test_requirements_of_an_image_that_no_function_has_change_nothing(machine: Machine, edits: Edits) -> None:
    await edits.apply(machine.images / "rie" / "requirements.txt")

    assert edits.printed.getvalue() == ""
