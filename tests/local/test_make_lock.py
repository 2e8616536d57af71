"""`make lock`, with a fake `uv`, so that no test changes a lock."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.fixtures import ROOT
from tests.fixtures.locks import LOCKS

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)


@pytest.fixture
def uv(tmp_path: Path) -> Path:
    """Return a `uv` that writes down its arguments, and fails if one of them is a line of the file `fails`."""
    path = tmp_path / "uv"
    fail = f'if grep -qsxF -e "$word" {tmp_path}/fails; then exit 7; fi'
    path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nfor word in "$@"; do {fail}; done\n')
    path.chmod(0o755)
    return path


def calls(uv: Path) -> list[str]:
    return (uv.parent / "calls").read_text().splitlines()


@pytest.mark.parametrize("target", ["lock", "lock-upgrade"])
def test_lock_without_uv_says_what_it_needs(tmp_path: Path, target: str) -> None:
    locked = make(target, f"UV={tmp_path}/uv")

    message, *rest = locked.stderr.splitlines()
    assert message == (
        "make lock needs uv, which is not on PATH: install it from https://docs.astral.sh/uv/, or run make lock UV=path/to/uv"
    )
    assert (locked.returncode, locked.stdout, len(rest)) == (2, "", 1)  # and make's own line about it


@pytest.mark.parametrize(("target", "upgrades"), [("lock", False), ("lock-upgrade", True)])
def test_lock_keeps_the_versions_in_every_lock_unless_told_to_upgrade(uv: Path, target: str, upgrades: bool) -> None:
    """`uv` keeps the versions that it finds in its output file."""
    assert make(target, f"UV={uv}").returncode == 0

    locks = [lock.relative_to(ROOT).as_posix() for lock in LOCKS]
    pairs = [f" {lock.removesuffix('.txt')}.in --output-file {lock}" for lock in locks]
    assert sorted(pair for call in calls(uv) for pair in pairs if call.endswith(pair)) == sorted(pairs)
    assert {"--upgrade" in call for call in calls(uv)} == {upgrades}


def test_make_lock_fails_if_a_lock_cannot_be_made(uv: Path) -> None:
    (uv.parent / "fails").write_text("images/websocket/requirements.in")

    locked = make("lock", f"UV={uv}")

    assert locked.returncode == 2
    assert "images/websocket/requirements.in" in calls(uv)[-1]
