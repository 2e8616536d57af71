"""The state file of `make up`: who may read it, and the errors if `make up` does not run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from local import paths, state
from local.errors import CommandError, LaunchError
from local.processes import find_descendants, is_running
from local.state import State
from tests.fixtures import ROOT

PORT = 4510
SLEEP = ["sleep", "600"]


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(paths, "STATE", tmp_path / ".local")
    paths.STATE.mkdir()
    return paths.STATE


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """Another process, which stands for a `make up` or for a process that it has started."""
    with subprocess.Popen(SLEEP) as process:
        yield process
        process.kill()


def build_state(process: subprocess.Popen[bytes], port: int = PORT, *, ready: bool = True, **changes: object) -> State:
    return State(process.pid, " ".join(SLEEP), {"--port": port}, ready=ready, **changes)  # type: ignore[arg-type]


def kill_and_wait(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def get_error(port: int = PORT) -> str:
    with pytest.raises(CommandError) as error:
        state.find_running(port)
    return str(error.value)


def test_state_is_read_as_it_was_written(other: subprocess.Popen[bytes]) -> None:
    written = build_state(other, children={17: "python -m ministack"}, users={"ada@example.com": "secret"})

    state.save(PORT, written)

    assert state.read(PORT) == written == state.find_running(PORT)


def test_only_the_owner_can_read_the_file(other: subprocess.Popen[bytes], folder: Path) -> None:
    """Even if an earlier `make up` was killed while it wrote, and left a file that others can read."""
    (folder / "up-4510.new").write_text("")
    (folder / "up-4510.new").chmod(0o644)

    state.save(PORT, build_state(other))

    assert {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()} == {"up-4510.json": 0o600}


def test_error_says_how_to_start_make_up() -> None:
    assert get_error() == "`make up` does not run on port 4510: start `make up` in another terminal"


def test_error_says_that_make_up_was_killed(other: subprocess.Popen[bytes]) -> None:
    state.save(PORT, build_state(other))
    kill_and_wait(other)

    why = f"`make up` does not run on port 4510 any more, pid {other.pid} was killed"
    assert get_error() == f"{why}: start `make up` in another terminal"


def test_error_says_that_make_up_is_still_starting(other: subprocess.Popen[bytes]) -> None:
    state.save(PORT, build_state(other, ready=False))

    assert get_error() == f"`make up` (pid {other.pid}) is still starting: wait until it has printed its lines"


def test_error_names_the_port_of_another_make_up(other: subprocess.Popen[bytes]) -> None:
    state.save(4600, build_state(other, 4600))

    assert get_error() == "`make up` does not run on port 4510: the one that runs has LOCAL_FLAGS=--port=4600"


def test_later_process_with_the_same_id_is_not_mistaken_for_make_up(other: subprocess.Popen[bytes]) -> None:
    state.save(PORT, State(other.pid, "python -m local up", {"--port": PORT}, ready=True))

    assert "was killed" in get_error()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"cognito_url": "http://127.0.0.1:1"}', '{"children": 1}']
)
def test_state_file_of_another_version_is_ignored(folder: Path, text: str) -> None:
    (folder / "up-4510.json").write_text(text)

    assert get_error().startswith("`make up` does not run on port 4510: ")
    assert state.claim(PORT, {"--port": PORT}) == []


def test_concurrent_commands_lose_no_update(other: subprocess.Popen[bytes]) -> None:
    state.save(PORT, build_state(other))
    program = (
        "import pathlib, sys, time; from local import paths, state\n"
        "paths.STATE = pathlib.Path(sys.argv[1])\n"
        "with state.update_running(4510) as running:\n"
        "    time.sleep(0.05)\n"
        "    running.users[sys.argv[2]] = 'secret'\n"
    )
    command = [sys.executable, "-c", program, str(paths.STATE)]

    commands = [subprocess.Popen([*command, f"{number}@example.com"], cwd=ROOT) for number in range(6)]

    assert [each.wait() for each in commands] == [0] * 6
    assert state.find_running(PORT).users == {f"{number}@example.com": "secret" for number in range(6)}


def test_update_does_not_restore_the_state_of_an_ended_make_up(other: subprocess.Popen[bytes], folder: Path) -> None:
    state.save(PORT, build_state(other))
    state.remove(PORT)

    with pytest.raises(CommandError), state.update_running(PORT):
        pytest.fail("it has ended")

    assert list(folder.iterdir()) == []


# Starting


def test_second_make_up_on_a_port_is_refused_and_names_the_first(other: subprocess.Popen[bytes]) -> None:
    state.save(PORT, build_state(other, ready=False))

    with pytest.raises(LaunchError, match=rf"^`make up` already runs on port 4510, with pid {other.pid}: end it, or "):
        state.claim(PORT, {"--port": PORT})

    assert state.read(PORT) == build_state(other, ready=False)


def test_starting_make_up_has_a_state_at_once() -> None:
    assert state.claim(PORT, {"--port": PORT, "--page-port": 3000}) == []

    assert get_error().startswith(f"`make up` (pid {os.getpid()}) is still starting")


def test_processes_of_a_killed_make_up_are_ended_and_named(other: subprocess.Popen[bytes]) -> None:
    with subprocess.Popen(SLEEP) as child, subprocess.Popen(SLEEP) as innocent:
        children = {child.pid: "sleep 600", innocent.pid: "python -m ministack", 2**22: "sleep 600"}
        state.save(PORT, build_state(other, children=children))
        kill_and_wait(other)

        left = state.claim(PORT, {"--port": PORT})

        assert left == [f"pid {child.pid} (sleep 600)"]
        assert child.wait() < 0
        assert innocent.poll() is None
        innocent.kill()


def test_process_that_ignores_sigterm_is_killed(other: subprocess.Popen[bytes]) -> None:
    command = ["sh", "-c", "trap '' TERM; echo; while :; do sleep 0.1; done"]
    with subprocess.Popen(command, stdout=PIPE) as stubborn:
        assert stubborn.stdout
        stubborn.stdout.readline()
        state.save(PORT, build_state(other, children={stubborn.pid: " ".join(command)}))
        kill_and_wait(other)

        state.claim(PORT, {"--port": PORT})

        assert stubborn.wait() == -9


def test_port_has_its_owner_until_the_owner_ends(other: subprocess.Popen[bytes]) -> None:
    state.save(4600, State(other.pid, "sleep 600", {"--port": 4600, "--aws-port": 4601}))

    assert (state.find_owner(4601), state.find_owner(4602)) == (other.pid, None)
    kill_and_wait(other)
    assert state.find_owner(4601) is None


# Processes


def test_descendants_are_found_at_every_level() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 600 & echo; wait"], stdout=PIPE) as shell:
        assert shell.stdout
        shell.stdout.readline()
        found = find_descendants(os.getpid())
        for pid, command in found.items():
            if command == "sleep 600":
                os.kill(pid, 9)

    assert found[shell.pid] == "sh -c sleep 600 & echo; wait"
    assert "sleep 600" in found.values()


def test_secrets_at_the_end_of_a_command_line_are_not_kept() -> None:
    with subprocess.Popen(
        ["sh", "-c", "echo; read line", "a" * 120, "--env=SECRET=secret"], stdin=PIPE, stdout=PIPE
    ) as shell:
        assert shell.stdout
        shell.stdout.readline()
        found = find_descendants(os.getpid())[shell.pid]

        assert is_running(shell.pid, found)
        shell.kill()

    assert found.startswith("sh -c echo; read line aaa")
    assert "secret" not in found


def test_zombie_process_does_not_count_as_running() -> None:
    with subprocess.Popen(SLEEP) as process:
        assert is_running(process.pid, "sleep 600")
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

        assert not is_running(process.pid, "sleep 600")
