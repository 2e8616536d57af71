"""The process of the local AWS."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from local.aws.ministack import LocalAws
from tests.fixtures.gateway import PATIENCE_SECONDS


@pytest.mark.parametrize("killed", [False, True])
async def test_end_of_the_local_aws_is_logged_unless_it_is_stopped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, killed: bool
) -> None:
    aws = LocalAws(log=tmp_path / "log")
    await aws.start()
    assert aws._process
    folder = aws._state
    assert folder.stat().st_mode & 0o777 == 0o700

    if killed:
        aws._process.kill()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not caplog.records:
                await asyncio.sleep(0.01)
    await aws.stop()

    logged = f"the local AWS ended with status -9, see {tmp_path}/log; end this run and start it again"
    assert [record.message for record in caplog.records] == [logged] * killed
    assert not folder.exists()
