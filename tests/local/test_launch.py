"""Whether the functions are run in their images or as processes, with an engine of the test's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from local import launch
from local.launch import LaunchError
from local.system import Options, chosen
from local.template import Function
from tests.local.conftest import WEBSOCKET

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


def test_images_are_run_where_an_engine_can_build_them(engine: Engine) -> None:
    engine("exit 0")

    assert chosen(Options(functions="auto"), TARGETS) == ("images", launch.image)


@pytest.mark.parametrize("script", [None, "exit 1", '[ "$1" = info ]'], ids=["no docker", "no engine", "no buildx"])
def test_processes_are_run_where_nothing_can_build_images(engine: Engine, script: str | None) -> None:
    if script:
        engine(script)

    assert chosen(Options(functions="auto"), TARGETS) == ("processes", launch.process)


def test_processes_are_run_and_it_is_said_where_images_cannot_be_built(engine: Engine) -> None:
    engine('[ "$1 $2" != "buildx bake" ] || { echo no network >&2; exit 1; }')

    way, start = chosen(Options(functions="auto"), TARGETS)

    assert start is launch.process
    assert "images could not be built" in way


def test_processes_are_run_where_they_are_asked_for(engine: Engine) -> None:
    engine("exit 0")

    assert chosen(Options(functions="process"), TARGETS) == ("processes", launch.process)


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
        chosen(Options(functions="image"), TARGETS)


def test_missing_installation_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(launch, "ROOT", tmp_path)
    monkeypatch.setattr(launch, "VENVS", tmp_path / "venvs")

    with pytest.raises(LaunchError, match="venvs/authorizer is missing: run `make setup`"):
        chosen(Options(functions="process"), {"authorizer"})


async def test_image_is_run_as_on_lambda(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read-only but for /tmp, and nothing of it listens for others than this machine."""
    monkeypatch.setenv("TAG", "test")
    engine('printf "%s\\n" "$@"')
    function = Function("Rooms", WEBSOCKET, "websocket", {}, timeout_seconds=3, memory_mb=512, logging={})

    process = await launch.image(function, {"A": "b c"})

    output, _ = await process.communicate()
    run, *options, image = output.decode().splitlines()
    assert (run, image) == ("run", "websocket:test")
    assert {"--rm", "--read-only", "--tmpfs=/tmp", "--network=host", "--memory=512m", "--env", "A=b c"} <= {*options}
    assert not any(option.startswith(("-p", "--publish", "--privileged", "-v", "--volume")) for option in options)
