"""Runs ministack, a local AWS with Cognito and DynamoDB. The user may choose another DynamoDB."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import uuid
from asyncio.subprocess import DEVNULL, STDOUT, Process
from contextlib import suppress
from pathlib import Path
from typing import Any

from local.aws.account import Account
from local.aws.clients import client
from local.errors import LaunchError
from local.paths import ROOT, VENVS
from local.ports import find_port
from local.reaper import Reaper

START_SECONDS = 30.0
STOP_SECONDS = 5.0
# ministack logs this when it has bound its port. A connection would prove less: another program may have taken the port.
LISTENING = b"Running on http://"

logger = logging.getLogger(__name__)


class LocalAws:
    """A ministack process. It listens on the loopback interface only, and its data is deleted when it ends.

    Attributes:
        account: the account and region in which its clients create and see resources.
    """

    def __init__(self, *, log: Path, port: int = 0, dynamodb_url: str | None = None) -> None:
        self.log = log
        self.port = find_port(port, "--aws-port")
        self.url = f"http://127.0.0.1:{self.port}"
        self.dynamodb_url = dynamodb_url or self.url
        self._state = Path(tempfile.gettempdir(), f"local-aws-{uuid.uuid4().hex}")
        self._reaper = Reaper(self._state)
        self.account = Account()
        self._process: Process | None = None
        self._reporting: asyncio.Task[None] | None = None

    @property
    def started(self) -> bool:
        return self._process is not None

    @property
    def urls(self) -> dict[str, str]:
        """The services' URLs by service; empty before the start."""
        return {"cognito-idp": self.url, "dynamodb": self.dynamodb_url} if self.started else {}

    async def start(self) -> None:
        """Start ministack and wait until it listens. Raise LaunchError if it does not."""
        python = VENVS / "aws" / "bin" / "python"
        if not python.exists():
            raise LaunchError(f"{VENVS.relative_to(ROOT)}/aws is missing: run `make setup`")
        self._state.mkdir(mode=0o700)  # the user pool's private key is stored there
        environment = {
            "PATH": os.defpath,
            "HOME": str(self._state),
            "AUTH": "true",  # without it, passwords and credentials are not checked
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "MINISTACK_ACCOUNT_ID": self.account.id,
            "IOT_MTLS_ENABLED": "0",  # it would listen on every interface
            "SFTP_ENABLED": "0",
            "SERVICES": "cognito-idp,dynamodb",
            "STATE_DIR": str(self._state),
        }
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                python, "-m", "ministack", cwd=self._state, env=environment, stdin=DEVNULL, stdout=log, stderr=STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self._reaper.watch(self._process.pid)
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while LISTENING not in self.log.read_bytes():
            if self._process.returncode is not None:
                raise LaunchError(f"the local AWS ended with status {self._process.returncode}, see {self.log}")
            if asyncio.get_running_loop().time() > deadline:
                raise LaunchError(f"the local AWS does not answer after {START_SECONDS:.0f} s, see {self.log}")
            await asyncio.sleep(0.05)
        self._reporting = asyncio.create_task(self._report_end(self._process))

    async def _report_end(self, process: Process) -> None:
        status = await process.wait()
        logger.error("the local AWS ended with status %d, see %s; end this run and start it again", status, self.log)

    async def stop(self) -> None:
        if self._reporting:
            self._reporting.cancel()
        if self._process and self._process.returncode is None:
            self._process.terminate()
            with suppress(TimeoutError):  # the reaper ends it
                await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        await self._reaper.stop()
        if self._process:
            await self._process.wait()

    def client(self, service: str) -> Any:
        url = self.dynamodb_url if service == "dynamodb" else self.url
        return client(service, url, self.account.region)
