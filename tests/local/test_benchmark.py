"""A run of `make bench`, with functions and launchers in real processes."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.launchers import PATIENCE_SECONDS, POLL_SECONDS, LaunchError, ProcessLauncher
from benchmarks.measurement import measure
from benchmarks.subjects import Subject, list_built_in

SUBJECT = Subject(name="ours", event="{}")


async def test_every_round_starts_the_subject_and_the_first_round_is_not_counted() -> None:
    (bare,) = [each for each in list_built_in(None) if each.name == "bare"]
    rounds: list[int] = []

    (measured,), _ = await measure([bare], rounds=2, requests=3, say_round=rounds.append)

    assert rounds == [0, 1, 2]
    assert [len(start.warm) for start in measured.starts] == [3, 3]
    assert all(start.cpu_init > 0 and start.peak_memory > 0 for start in measured.starts)


def test_killed_subject_is_gone_before_the_next_is_started(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import time; time.sleep(60)")
    launcher = ProcessLauncher(replace(SUBJECT, command=command, working_directory="."), tmp_path, "launcher")
    launcher.start({})
    try:
        launcher.start_subject()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not launcher.has_subject():  # a run waits for its first invocation, too, before it kills it
            assert time.monotonic() < deadline
            time.sleep(POLL_SECONDS)
        launcher.kill_subject()
        gone = not launcher.has_subject()
    finally:
        launcher.stop()

    assert gone


async def test_subject_that_ends_is_named_with_what_it_wrote() -> None:
    command = (sys.executable, "-c", "raise SystemExit('no such table')")
    broken = replace(SUBJECT, name="peer", command=command, working_directory=".")

    with pytest.raises(LaunchError, match=r"peer \(process\): it ended without asking .*\s+no such table"):
        await measure([broken], rounds=1, requests=1, say_round=lambda _: None)


async def test_answer_that_is_not_the_expected_one_ends_the_run() -> None:
    (bare,) = [each for each in list_built_in(None) if each.name == "bare"]

    with pytest.raises(LaunchError, match="its answer does not contain Allow"):
        await measure([replace(bare, expect="Allow")], rounds=1, requests=1, say_round=lambda _: None)
