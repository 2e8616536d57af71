"""Reads and writes the state file of a running `make up`, for commands in another terminal. Only its owner can read it."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from local import paths
from local.errors import CommandError, LaunchError
from local.processes import end_processes, is_running, read_command

PORT = 4510  # of `make up` without --port


@dataclass
class State:
    """The state of a running `make up`.

    Attributes:
        pid: the id of its process.
        command: the start of its command line.
        ports: its ports, by the flag that chooses the port.
        children: the command lines of the processes that it has started, by id.
        ready: whether everything runs; until then the attributes below have their defaults.
        operator_url: the endpoint of DynamoDB and Cognito that checks the operator's policy; empty without a policy.
        credentials: the operator's access key and secret key, and with a policy the session token.
        users: passwords by email address in lower case, for the users that `make up` and `make user` have added.
    """

    pid: int
    command: str
    ports: dict[str, int]
    children: dict[int, str] = field(default_factory=dict)
    ready: bool = False
    callback_url: str = ""
    region: str = ""
    cognito_url: str = ""
    dynamodb_url: str = ""
    user_pool_id: str | None = None
    app_client_id: str | None = None
    table_name: str | None = None
    operator_url: str = ""
    credentials: list[str] = field(default_factory=lambda: ["test", "test"])
    users: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_this_process(cls, ports: dict[str, int], **facts: Any) -> Self:
        pid = os.getpid()
        return cls(pid, read_command(pid), ports, **facts)

    @property
    def is_running(self) -> bool:
        return is_running(self.pid, self.command)


def write_flags(port: int) -> str:
    """Return the argument, with a space before it, that makes a make command use the `make up` on this port."""
    return "" if port == PORT else f" LOCAL_FLAGS=--port={port}"


def find_file(port: int) -> Path:
    return paths.STATE / f"up-{port}.json"


@contextmanager
def lock_states() -> Iterator[None]:
    """Lock the state files, so that only one process at a time changes them."""
    folder = os.open(paths.STATE, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def read(port: int) -> State | None:
    """Return the state of the `make up` on a port; None if there is no file, or if another version wrote it."""
    try:
        values = json.loads(find_file(port).read_text())
        values["children"] = {int(pid): command for pid, command in values["children"].items()}
        return State(**values)
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        return None


def write(port: int, state: State) -> None:
    """Write the file atomically, so that no reader sees an incomplete file."""
    file = find_file(port)
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    try:
        new.write_text(json.dumps(dataclasses.asdict(state), indent=2))
        new.replace(file)
    except OSError as error:
        new.unlink()
        raise OSError(error.errno, error.strerror, str(file)) from error


def claim(port: int, ports: dict[str, int]) -> list[str]:
    """Claim a port for this `make up`. End the processes of an earlier one that was killed, and return them.

    Raises:
        LaunchError: another `make up` runs on the port.
    """
    paths.STATE.mkdir(parents=True, exist_ok=True)
    with lock_states():
        before = read(port)
        if before and before.is_running:
            raise LaunchError(
                f"`make up` already runs on port {port}, with pid {before.pid}: end it, "
                'or start another beside it with LOCAL_FLAGS="--port 0 --aws-port 0 --page-port 0 --inspector-port 0"'
            )
        left = end_processes(before.children) if before else {}
        write(port, State.of_this_process(ports))
    return [f"pid {pid} ({command})" for pid, command in left.items()]


def save(port: int, state: State) -> None:
    with lock_states():
        write(port, state)


def remove(port: int) -> None:
    with lock_states():
        find_file(port).unlink(missing_ok=True)


@contextmanager
def update_running(port: int) -> Iterator[State]:
    """Yield the state of a running `make up`, and write it back at the end. The lock prevents lost updates."""
    find_running(port)  # raises CommandError if there is no folder to lock
    with lock_states():
        state = find_running(port)
        try:
            yield state
        finally:
            write(port, state)


def find_running(port: int) -> State:
    """Return the state of the `make up` on a port.

    Raises:
        CommandError: `make up` does not run on the port, or is still starting.
    """
    state = read(port)
    if state and state.is_running:
        if not state.ready:
            raise CommandError(f"`make up` (pid {state.pid}) is still starting: wait until it has printed its lines")
        return state
    killed = f" any more, pid {state.pid} was killed" if state else ""
    others = [other for other in find_all() if other.is_running and other.ready]
    if others:
        here = f"the one that runs has LOCAL_FLAGS=--port={others[0].ports['--port']}"
    else:
        here = "start `make up` in another terminal"
    raise CommandError(f"`make up` does not run on port {port}{killed}: {here}")


def find_all() -> list[State]:
    """Return the states of all ports, including those of processes that were killed."""
    with suppress(OSError):
        ports = [int(file.stem.removeprefix("up-")) for file in paths.STATE.glob("up-[0-9]*.json")]
        return [state for port in sorted(ports) if (state := read(port))]
    return []


def find_owner(port: int) -> int | None:
    """Return the pid of another `make up` of this folder that has claimed a port; None if there is none."""
    owners = (state.pid for state in find_all() if port in state.ports.values() and state.is_running)
    return next((pid for pid in owners if pid != os.getpid()), None)
