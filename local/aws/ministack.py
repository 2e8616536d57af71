"""A local AWS for what functions call: Cognito and DynamoDB by ministack, or a DynamoDB of the user's choice."""

from __future__ import annotations

import asyncio
import os
import tempfile
from asyncio.subprocess import STDOUT, Process
from pathlib import Path
from typing import Any

from local.aws.account import Account
from local.aws.clients import client
from local.errors import LaunchError
from local.paths import ROOT, VENVS
from local.ports import find_port

START_SECONDS = 30.0


class LocalAws:
    """ministack as a process of its own, on the loopback interface only, forgetting everything at its end.

    Attributes:
        account: whose resources its clients create and see.
    """

    def __init__(self, *, log: Path, port: int = 0, dynamodb_url: str | None = None) -> None:
        self.log = log
        self.port = find_port(port, "--aws-port")
        self.url = f"http://127.0.0.1:{self.port}"
        self.dynamodb_url = dynamodb_url or self.url
        self._state = tempfile.TemporaryDirectory(prefix="local-aws-")  # the user pool's private key lies there
        self.account = Account()
        self._process: Process | None = None

    @property
    def started(self) -> bool:
        return self._process is not None

    @property
    def urls(self) -> dict[str, str]:
        """The service's URLs; none before it is started."""
        return {"cognito-idp": self.url, "dynamodb": self.dynamodb_url} if self.started else {}

    async def start(self) -> None:
        """Returns when it answers; LaunchError if it does not."""
        python = VENVS / "aws" / "bin" / "python"
        if not python.exists():
            raise LaunchError(f"{VENVS.relative_to(ROOT)}/aws is missing: run `make setup`")
        environment = {
            "PATH": os.defpath,
            "HOME": self._state.name,
            "AUTH": "true",  # passwords and credentials are checked only then
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "IOT_MTLS_ENABLED": "0",  # it would listen on every interface
            "SFTP_ENABLED": "0",
            "SERVICES": "cognito-idp,dynamodb",
            "STATE_DIR": self._state.name,
        }
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                python, "-m", "ministack", cwd=self._state.name, env=environment, stdout=log, stderr=STDOUT,
                start_new_session=True,
            )  # fmt: skip
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while not await answers(self.port):
            if self._process.returncode is not None:
                raise LaunchError(f"the local AWS ended with status {self._process.returncode}, see {self.log}")
            if asyncio.get_running_loop().time() > deadline:
                raise LaunchError(f"the local AWS does not answer after {START_SECONDS:.0f} s, see {self.log}")
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        if self._process:
            if self._process.returncode is None:
                self._process.terminate()
            await self._process.wait()
        self._state.cleanup()

    def client(self, service: str) -> Any:
        url = self.dynamodb_url if service == "dynamodb" else self.url
        return client(service, url, self.account.region)


async def answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
