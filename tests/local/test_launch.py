"""How the functions are run: in their images or as processes, with an engine of the test's."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from local.errors import LaunchError
from local.lambda_ import launch
from local.lambda_.environment import Launch
from local.system import Options, build_or_fall_back
from tests.local.conftest import PATIENCE_SECONDS, function

TARGETS = {"authorizer", "websocket"}
Engine = Callable[[str], None]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Puts a `docker` that is this shell script in the place of the desk's own."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def installed(script: str) -> None:
        (tmp_path / "docker").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "docker").chmod(0o755)

    return installed


def is_process(start: Launch) -> bool:
    return isinstance(start, partial) and start.func is launch.process


def test_images_are_run_where_an_engine_can_build_them(engine: Engine) -> None:
    engine("exit 0")

    assert build_or_fall_back(Options(functions="auto"), TARGETS) == ("images", launch.image)


def test_images_of_these_functions_are_built_and_no_others(engine: Engine, tmp_path: Path) -> None:
    engine(f'echo "$@" >> {tmp_path}/calls')

    build_or_fall_back(Options(functions="image"), {"rooms", "guard"})

    assert (tmp_path / "calls").read_text() == "buildx bake --load guard rooms\n"


@pytest.mark.parametrize("script", [None, "exit 1", '[ "$1" = info ]'], ids=["no docker", "no engine", "no buildx"])
def test_processes_are_run_where_nothing_can_build_images(engine: Engine, script: str | None) -> None:
    if script:
        engine(script)

    way, start = build_or_fall_back(Options(functions="auto"), TARGETS)

    assert (way, is_process(start)) == ("processes", True)


def test_processes_are_run_and_it_is_said_where_images_cannot_be_built(engine: Engine) -> None:
    engine('[ "$1 $2" != "buildx bake" ] || { echo no network >&2; exit 1; }')

    way, start = build_or_fall_back(Options(functions="auto"), TARGETS)

    assert is_process(start)
    assert "images could not be built" in way


def test_processes_are_run_where_they_are_asked_for(engine: Engine) -> None:
    engine("exit 0")

    way, start = build_or_fall_back(Options(functions="process"), TARGETS)

    assert (way, is_process(start)) == ("processes", True)


@pytest.mark.parametrize(
    ("script", "reason"),
    [(None, "docker"), ("echo '#1 [internal]' >&2; echo 'ERROR: no such image' >&2; exit 1", "ERROR: no such image")],
    ids=["no docker", "failed build"],
)
def test_images_that_are_asked_for_and_cannot_be_built_are_an_error(
    engine: Engine, script: str | None, reason: str
) -> None:
    if script:
        engine(script)

    with pytest.raises(LaunchError, match=reason):
        build_or_fall_back(Options(functions="image"), TARGETS)


# Processes


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with the source of a function `rooms`."""
    folder = tmp_path / "images"
    (folder / "rooms").mkdir(parents=True)
    (folder / "rooms" / "rooms.py").touch()
    return folder


@pytest.fixture
def venvs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where virtual environments would be."""
    monkeypatch.setattr(launch, "ROOT", tmp_path)
    monkeypatch.setattr(launch, "VENVS", tmp_path / "venvs")
    return tmp_path / "venvs"


def test_missing_installation_says_what_to_do(images: Path, venvs: Path) -> None:
    with pytest.raises(LaunchError, match="venvs/rooms is missing: run `make setup`"):
        build_or_fall_back(Options(functions="process", images=images), {"rooms"})


def test_missing_source_is_named_with_its_target(images: Path, venvs: Path) -> None:
    with pytest.raises(LaunchError, match=r"images/guard/guard\.py is missing, the handler of bake target guard"):
        build_or_fall_back(Options(functions="process", images=images), {"guard"})


async def test_process_is_run_from_the_folder_of_its_source(images: Path, venvs: Path) -> None:
    python = venvs / "rooms" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@"; pwd; echo "$LAMBDA_TASK_ROOT $A"\n')
    python.chmod(0o755)
    _, start = build_or_fall_back(Options(functions="process", images=images), {"rooms"})

    launched = await start(function(target="rooms"), {"A": "b c"})

    output, _ = await launched.process.communicate()
    assert output.decode().splitlines() == [
        "-m awslambdaric rooms.handler",
        str(images / "rooms"),
        f"{images}/rooms b c",
    ]


async def test_killed_process_takes_along_what_it_has_started(images: Path, venvs: Path) -> None:
    python = venvs / "rooms" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n/bin/sleep 600 &\necho started\nwait\n")
    python.chmod(0o755)
    launched = await launch.process(function(target="rooms"), {}, source=images)
    assert launched.process.stdout
    assert await launched.process.stdout.readline() == b"started\n"

    await launched.kill()

    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await launched.process.stdout.read() == b""  # which `sleep` would hold open
        assert await launched.process.wait() == -signal.SIGKILL


# Images


async def test_image_is_run_as_on_lambda(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read-only but for /tmp, and nothing of it listens for others than this machine."""
    monkeypatch.setenv("TAG", "test")
    engine('printf "%s\\n" "$@"')

    launched = await launch.image(function(memory_mb=512), {"A": "b c"})

    output, _ = await launched.process.communicate()
    run, *options, image = output.decode().splitlines()
    assert (run, image) == ("run", "websocket:test")
    assert {"--rm", "--read-only", "--tmpfs=/tmp", "--network=host", "--memory=512m", "--env", "A=b c"} <= {*options}
    assert {f"--name={launched.container}", f"--label={launch.LABEL}"} <= {*options}
    assert not any(option.startswith(("-p", "--publish", "--privileged", "-v", "--volume")) for option in options)


async def test_killed_image_takes_its_container_along(engine: Engine, tmp_path: Path) -> None:
    engine(f'[ "$1" = run ] && exec /bin/sleep 600; echo "$@" >> {tmp_path}/calls')
    launched = await launch.image(function(), {})

    await launched.kill()

    assert await launched.process.wait() == -signal.SIGKILL
    assert (tmp_path / "calls").read_text() == f"rm --force {launched.container}\n"


async def test_environments_of_one_function_have_containers_of_their_own(engine: Engine) -> None:
    engine("exit 0")

    launched = [await launch.image(function(), {}) for _ in range(2)]

    for each in launched:
        await each.process.communicate()
    assert len({each.container for each in launched}) == 2


@pytest.mark.parametrize(("left", "removed"), [("a1 b2", "rm --force a1 b2\n"), ("", "")], ids=["some", "none"])
def test_containers_that_are_left_are_removed(engine: Engine, tmp_path: Path, left: str, removed: str) -> None:
    (tmp_path / "calls").touch()
    listed = f'[ "$1" = ps ] && case "$*" in *label={launch.LABEL}*) echo "{left}";; esac'
    engine(f'{listed} || echo "$@" >> {tmp_path}/calls')

    launch.remove_containers()

    assert (tmp_path / "calls").read_text() == removed
