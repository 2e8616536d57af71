"""How functions are launched: in images or as processes, with a fake `docker` command."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from local.errors import LaunchError
from local.lambda_ import containers as containers_module
from local.lambda_ import processes
from local.lambda_.containers import LABEL, Containers, has_engine
from local.lambda_.processes import Processes
from tests.fixtures.apis import function
from tests.fixtures.gateway import PATIENCE_SECONDS
from tests.fixtures.processes import find_running

Engine = Callable[[str], None]

# A `docker` command that builds every target.
BUILDS = """
case "$1 $2" in
"buildx bake") for word in "$@"; do case $word in --metadata-file=*) echo 'METADATA' > "${word#*=}";; esac; done;;
esac
""".replace("METADATA", json.dumps({"rooms": {"containerimage.config.digest": "sha256:1"}}))


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Replace the `docker` command by a shell script."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def installed(script: str) -> None:
        (tmp_path / "docker").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "docker").chmod(0o755)

    return installed


@pytest.mark.parametrize("script", [None, "exit 1", '[ "$1" = info ]'], ids=["no docker", "no engine", "no buildx"])
def test_engine_that_cannot_build_images_does_not_count(engine: Engine, script: str | None) -> None:
    if script:
        engine(script)

    assert not has_engine()


def test_engine_that_answers_counts(engine: Engine) -> None:
    engine("exit 0")

    assert has_engine()


# Processes


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with the source of a function `rooms`."""
    folder = tmp_path / "images"
    (folder / "rooms").mkdir(parents=True)
    (folder / "rooms" / "rooms.py").write_text("first")
    return folder


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Create the virtual environment of `rooms`, in which Python is a shell script."""
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    monkeypatch.setattr(processes, "VENVS", tmp_path / "venvs")

    def installed(script: str) -> None:
        path = tmp_path / "venvs" / "rooms" / "bin" / "python"
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return installed


@pytest.fixture
async def launcher(images: Path, tmp_path: Path) -> AsyncIterator[Processes]:
    started = Processes(images, tmp_path / "snapshots")
    yield started
    await started.stop()


@pytest.mark.usefixtures("python")
async def test_missing_installation_says_what_to_do(launcher: Processes) -> None:
    with pytest.raises(
        LaunchError, match=r"venvs/rooms, with the packages of rooms, is missing: run `make .*venvs/rooms/stamp`"
    ):
        await launcher.prepare({"rooms"})


async def test_files_that_are_not_code_are_not_copied(
    launcher: Processes, images: Path, python: Engine, tmp_path: Path
) -> None:
    python("exit 0")
    folder = images / "rooms"
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to(folder)
    (folder / "nothing").symlink_to(folder / "missing")

    await launcher.prepare({"rooms"})

    (copy,) = (tmp_path / "snapshots").glob("*/rooms-*")
    assert sorted(each.name for each in copy.iterdir()) == sorted(
        each.name for each in folder.iterdir() if each.name not in {"pipe", "loop", "nothing"}
    )


async def test_missing_source_is_named_with_its_target(launcher: Processes) -> None:
    with pytest.raises(LaunchError, match=r"images/guard/guard\.py is missing, the handler of bake target guard"):
        await launcher.prepare({"guard"})


async def test_file_that_cannot_be_copied_is_named(launcher: Processes, images: Path, python: Engine) -> None:
    python("exit 0")
    (images / "rooms" / "large").write_bytes(bytes(20_000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(LaunchError, match=r"images/rooms cannot be copied: .*large: .*File too large"):
            await launcher.prepare({"rooms"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_process_is_run_from_a_copy_of_its_source(launcher: Processes, images: Path, python: Engine) -> None:
    python('echo "$@"; cat rooms.py; echo; ls -A; echo "$LAMBDA_TASK_ROOT" "$A"; pwd')
    (images / "rooms" / "__pycache__").mkdir()
    (images / "rooms" / ".#rooms.py").symlink_to("an editor's lock")
    start = (await launcher.prepare({"rooms"}))["rooms"]
    (images / "rooms" / "rooms.py").write_text("half of the seco")

    launched = await start(function(target="rooms"), {"A": "b c", "LAMBDA_TASK_ROOT": "/elsewhere"})

    arguments, code, files, environment, folder = [line async for line in launched.output.read_lines()]
    assert (arguments, code, files) == ("-m awslambdaric rooms.handler", "first", "rooms.py")
    assert environment == f"{folder} b c"
    await launched.clean_up()


async def test_kill_ends_the_child_processes_too(launcher: Processes, python: Engine) -> None:
    python("/bin/sleep 600 &\necho started\nexec /bin/sleep 600")
    launched = await (await launcher.prepare({"rooms"}))["rooms"](function(target="rooms"), {})
    assert await anext(launched.output.read_lines()) == "started"

    await launched.kill()

    async with asyncio.timeout(PATIENCE_SECONDS):
        assert [line async for line in launched.output.read_lines()] == []  # `sleep` would hold the pipe open
        assert await launched.process.wait() == -signal.SIGKILL


async def test_stop_leaves_no_processes_and_no_copies(launcher: Processes, python: Engine, tmp_path: Path) -> None:
    python("exec /bin/sleep 600")
    launched = await (await launcher.prepare({"rooms"}))["rooms"](function(target="rooms"), {})

    await launcher.stop()

    assert await launched.process.wait() == -signal.SIGKILL
    assert list((tmp_path / "snapshots").iterdir()) == []


# Images


@pytest.fixture
async def containers(engine: Engine) -> AsyncIterator[Containers]:
    started = Containers([Path("/ca.pem")])
    yield started
    await started.stop()


async def test_images_of_these_functions_are_built_and_no_others(
    containers: Containers, engine: Engine, tmp_path: Path
) -> None:
    engine(f'echo "$@" >> {tmp_path}/calls; {BUILDS}')

    await containers.prepare({"rooms"})

    first, *_ = (tmp_path / "calls").read_text().splitlines()
    assert first.startswith("buildx bake --load --progress=plain --metadata-file=")
    assert first.endswith(" rooms")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "no docker"),
        ("echo '#1 [internal]' >&2; echo 'ERROR: no such image' >&2; exit 1", "ERROR: no such image"),
    ],
    ids=["no docker", "failed build"],
)
async def test_images_that_cannot_be_built_are_an_error(
    containers: Containers, engine: Engine, script: str | None, reason: str
) -> None:
    if script:
        engine(script)

    with pytest.raises(LaunchError, match=reason):
        await containers.prepare({"rooms"})


BROKEN_HANDLER = """
echo '#11 [code 2/2] RUN python -m compileall /out/var/task'
echo "#11 0.387 *** Error compiling '/out/var/task/rooms.py'..."
echo '#11 0.387   File "var/task/rooms.py", line 3'
echo "#11 0.387 SyntaxError: '{' was never closed"
echo '#11 ERROR: process "/bin/sh -c python" did not complete successfully: exit code: 1'
echo 'ERROR: failed to solve: process "/bin/sh -c python" did not complete successfully: exit code: 1'
exit 1
"""


async def test_failed_step_of_a_build_is_shown_with_the_users_file(engine: Engine, images: Path) -> None:
    engine(BROKEN_HANDLER)
    containers = Containers(source=images)

    with pytest.raises(LaunchError) as error:
        await containers.prepare({"rooms"})

    file = images / "rooms" / "rooms.py"
    assert str(error.value) == (
        f"docker buildx bake: *** Error compiling '{file}'...\n"
        f'  File "{file}", line 3\n'
        "SyntaxError: '{' was never closed"
    )


NO_BASE = """
echo '#3 [context base] load metadata for docker.io/library/python:3.13-slim'
echo '#3 ERROR: no such host'
echo 'ERROR: failed to solve: failed to resolve source metadata for docker.io/library/python:3.13-slim: no such host'
exit 1
"""


async def test_missing_base_image_is_an_error_with_advice(containers: Containers, engine: Engine) -> None:
    engine(NO_BASE)

    with pytest.raises(LaunchError, match=r"no such host; the base image cannot be pulled: .* set BASE_IMAGE"):
        await containers.prepare({"rooms"})


async def test_registry_that_does_not_answer_times_out(
    containers: Containers, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers_module, "REGISTRY_SECONDS", 0.2)
    waits = "echo '#3 [context base] load metadata for python:3.13'; exec /bin/sleep 600"
    engine(f'[ "$1" = buildx ] || exit 0; echo "#2 load metadata for other:1"; echo "#2 DONE 0.1s"; {waits}')

    with pytest.raises(LaunchError, match=r"the registry of python:3\.13 has not answered for 0 s; the base image"):
        await containers.prepare({"rooms"})


async def test_engine_whose_containers_cannot_reach_this_machine_is_an_error(
    containers: Containers, engine: Engine
) -> None:
    engine(f'[ "$1" = run ] && echo unreachable; {BUILDS}')

    with pytest.raises(LaunchError, match=r"cannot reach this machine's 127\.0\.0\.1.*--functions process"):
        await containers.prepare({"rooms"})


async def test_end_removes_images_that_later_builds_have_replaced_unless_they_have_a_name(
    containers: Containers, engine: Engine, tmp_path: Path
) -> None:
    for number in (1, 2, 3, 3):
        build = BUILDS.replace("sha256:1", f"sha256:{number}")
        engine(f'echo "$@" >> {tmp_path}/calls; [ "$1 $2" = "image ls" ] && echo sha256:1 sha256:0; {build}')
        await containers.prepare({"rooms"})

    await containers.stop()

    assert (tmp_path / "calls").read_text().splitlines()[-1] == "image rm sha256:1"


async def test_build_ends_with_the_local_run(containers: Containers, engine: Engine, tmp_path: Path) -> None:
    engine(f'[ "$1" = buildx ] && echo $$ > {tmp_path}/pid && exec /bin/sleep 600')
    building = asyncio.create_task(containers.prepare({"rooms"}))
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        await asyncio.sleep(0.01)

    building.cancel()
    await asyncio.wait([building])

    pid = int((tmp_path / "pid").read_text())
    async with asyncio.timeout(PATIENCE_SECONDS):
        while find_running([pid]):
            await asyncio.sleep(0.01)


async def test_image_is_run_as_on_lambda(containers: Containers, engine: Engine) -> None:
    """Read-only except /tmp, without swap, and without ports beyond the loopback interface."""
    engine(f'[ "$1 $2" = "run --init" ] && printf "%s\\n" "$@"; {BUILDS}')
    start = (await containers.prepare({"rooms"}))["rooms"]

    launched = await start(function(memory_mb=512), {"A": "b c"})

    run, *options, image = [line async for line in launched.output.read_lines()]
    assert (run, image) == ("run", "sha256:1")
    assert {"--read-only", "--tmpfs=/tmp", "--network=host", "--memory=512m", "--memory-swap=512m"} <= {*options}
    assert {"--env", "A=b c", "--volume=/ca.pem:/ca.pem:ro", f"--label={LABEL}"} <= {*options}
    assert not any(option.startswith(("-p", "--publish", "--privileged")) for option in options)


@pytest.mark.parametrize(
    ("status", "out_of_memory", "end"),
    [
        (137, "true", ("Runtime.OutOfMemory", "signal: killed: it used all of its memory, MemorySize is 512 MB")),
        (137, "false", ("Runtime.ExitError", "signal: killed")),
        (139, "false", ("Runtime.ExitError", "signal: segmentation fault")),
        (3, "false", ("Runtime.ExitError", "exit status 3")),
    ],
)
async def test_end_of_a_container_is_reported_as_on_lambda(
    containers: Containers, engine: Engine, status: int, out_of_memory: str, end: tuple[str, str]
) -> None:
    engine(f'[ "$1 $2" = "run --init" ] && exit {status}; [ "$1" = inspect ] && echo {out_of_memory}; {BUILDS}')
    launched = await (await containers.prepare({"rooms"}))["rooms"](function(memory_mb=512), {})
    await launched.process.wait()

    error = await launched.clean_up()

    assert (error.error, error.message) == (end[0], f"Runtime exited with error: {end[1]}")


async def test_paths_in_an_image_become_those_of_the_source(engine: Engine, images: Path) -> None:
    engine(BUILDS)
    containers = Containers(source=images)
    launched = await (await containers.prepare({"rooms"}))["rooms"](function(target="rooms"), {})
    await launched.process.wait()

    text = launched.localize('File "/var/task/rooms.py", File "/var/task/boto3/session.py"')

    assert text == f'File "{images}/rooms/rooms.py", File "/var/task/boto3/session.py"'
    await launched.clean_up()
    await containers.stop()


async def test_kill_removes_the_container(containers: Containers, engine: Engine, tmp_path: Path) -> None:
    engine(f'echo "$@" >> {tmp_path}/calls; [ "$1 $2" = "run --init" ] && exec /bin/sleep 600; {BUILDS}')
    launched = await (await containers.prepare({"rooms"}))["rooms"](function(), {})

    await launched.kill()

    assert await launched.process.wait() == -signal.SIGKILL
    assert "rm --force local-websocket-" in (tmp_path / "calls").read_text()


async def test_environments_of_one_function_have_containers_of_their_own(
    containers: Containers, engine: Engine, tmp_path: Path
) -> None:
    engine(f'echo "$@" >> {tmp_path}/calls; {BUILDS}')
    start = (await containers.prepare({"rooms"}))["rooms"]

    for launched in [await start(function(), {}) for _ in range(2)]:
        await launched.process.wait()
        await launched.clean_up()

    removed = {line for line in (tmp_path / "calls").read_text().splitlines() if line.startswith("rm --force ")}
    assert len(removed) == 2


@pytest.mark.parametrize(("left", "removed"), [("a1 b2", ["rm --force a1 b2"]), ("", [])], ids=["some", "none"])
async def test_remaining_containers_are_removed(
    containers: Containers, engine: Engine, tmp_path: Path, left: str, removed: list[str]
) -> None:
    listed = f'[ "$1" = ps ] && case "$*" in *label={LABEL}*) echo "{left}";; esac'
    engine(f'echo "$@" >> {tmp_path}/calls; {listed}; {BUILDS}')
    launched = await (await containers.prepare({"rooms"}))["rooms"](function(), {})
    await launched.process.wait()

    await containers.stop()

    assert [line for line in (tmp_path / "calls").read_text().splitlines() if line.startswith("rm")] == removed
