"""Everything that a process has started ends with it, however the process ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.fixtures import ROOT
from tests.fixtures.gateway import PATIENCE_SECONDS
from tests.fixtures.processes import find_running

# Starts two process groups, one of which ends before this process does.
PARENT = """
import signal, subprocess, sys, time
from pathlib import Path
from local.reaper import Reaper

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run with SIGHUP ignored, for example by nohup
reaper = Reaper(Path(sys.argv[1]), label="no-such-label")
ended, child = (
    subprocess.Popen(["sh", "-c", f"sleep 600 & echo $!; {rest}"], stdout=subprocess.PIPE, start_new_session=True)
    for rest in ("exit", "wait")
)
for started in (ended, child):
    reaper.watch(started.pid)
ended.wait()
reaper.release(ended.pid)
print(int(ended.stdout.readline()), child.pid, int(child.stdout.readline()), flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("number", "seconds"),
    [(signal.SIGKILL, 600), (signal.SIGHUP, 600), (None, 0)],
    ids=["kill -9", "closed terminal", "own end"],
)
async def test_everything_that_is_watched_ends_with_the_process(
    tmp_path: Path, number: signal.Signals | None, seconds: float
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "key").touch()
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, folder, str(seconds), cwd=ROOT, stdout=PIPE
    )
    assert parent.stdout
    released, *watched = map(int, (await parent.stdout.readline()).split())

    if number:
        parent.send_signal(number)

    async with asyncio.timeout(PATIENCE_SECONDS):
        await parent.wait()
        while find_running(watched) or folder.exists():
            await asyncio.sleep(0.01)
    assert find_running([released]) == [released]
    os.kill(released, signal.SIGKILL)
