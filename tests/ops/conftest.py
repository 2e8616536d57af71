"""What the tests of `ops` share: clients of a real gateway, their rows in a real DynamoDB, and `python -m ops`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import botocore.session
import pytest
from botocore.session import Session
from websockets.asyncio.client import ClientConnection

from benchmarks.ops import create_table
from local.apigateway.api import Throttle
from local.aws.iam import ADMINISTRATOR
from local.aws.ministack import LocalAws
from ops import Deployment
from tests.conftest import ROOT
from tests.local.conftest import OUR_ROUTES, Gateway, Serve, api, gateway, listen, own_template, serve

__all__ = ["gateway", "listen", "own_template", "serve"]

TABLE = "connections-of-ops"  # so that a push to all users meets no other test's rows
GONE = "G0neOFvHcCIhwAA="
AN_HOUR = 3600
LONG_AGO = -120
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def desk_session() -> Session:
    session = botocore.session.Session()
    session.set_credentials(ADMINISTRATOR, ADMINISTRATOR)
    return session


@dataclass
class Desk:
    """A gateway, a table, and a user whom no other test knows."""

    gateway: Gateway
    database: LocalAws
    user_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    opened: list[Deployment] = field(default_factory=list)

    def deployment(self, **changes: Any) -> Deployment:
        facts: dict[str, Any] = {
            "region": "us-east-1",
            "table_name": TABLE,
            "callback_url": f"http://127.0.0.1:{self.gateway.port}/prod",
            "session": desk_session(),
            "endpoint_urls": {"dynamodb": self.database.url, "cognito-idp": self.database.url},
            "threads": 4,
        }
        self.opened.append(Deployment(**facts | changes))
        return self.opened[-1]

    async def put(self, connection_id: str, *, seconds: int = AN_HOUR, age: int | None = 60, **more: Any) -> None:
        """Store a connection of the user that is to be removed so many seconds from now."""
        now = int(time.time())
        row = {
            "connectionId": {"S": connection_id},
            "userId": {"S": self.user_id},
            "removedAt": {"N": str(now + seconds)},
            **more,
        }
        if age is not None:
            row["connectedAt"] = {"N": str(now - age)}
        await asyncio.to_thread(self.database.client("dynamodb").put_item, TableName=TABLE, Item=row)

    async def connect(self, **row: Any) -> tuple[ClientConnection, str]:
        """Return a client of the user, and its connection's id."""
        peer, connection_id = await self.gateway.connected()
        await self.put(connection_id, **row)
        return peer, connection_id

    def throttle(self, rate: float) -> None:
        """Let so many calls a second pass from now on, and one at once."""
        self.gateway.server._requests.throttle = Throttle(rate=rate, burst=1)
        self.gateway.server._requests.tokens = min(rate, 1)

    async def row(self, connection_id: str) -> dict[str, Any] | None:
        return await asyncio.to_thread(self.read_row, connection_id)

    def read_row(self, connection_id: str) -> dict[str, Any] | None:
        key = {"connectionId": {"S": connection_id}}
        item: dict[str, Any] | None = self.database.client("dynamodb").get_item(TableName=TABLE, Key=key).get("Item")
        return item

    @property
    def options(self) -> list[str]:
        """The options by which `python -m ops` finds this desk."""
        where = {"--table": TABLE, "--callback-url": f"http://127.0.0.1:{self.gateway.port}/prod"}
        return [word for option in {**where, "--region": "us-east-1"}.items() for word in option]

    @property
    def variables(self) -> dict[str, str]:
        """The variables by which `python -m ops` finds this desk."""
        return {
            "AWS_ACCESS_KEY_ID": ADMINISTRATOR,
            "AWS_SECRET_ACCESS_KEY": ADMINISTRATOR,
            "AWS_ENDPOINT_URL_DYNAMODB": self.database.url,
            "AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER": self.database.url,
        }

    async def ops(self, *words: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m ops` with this desk's options."""
        return await asyncio.to_thread(run_ops, *words, *self.options, stdin=stdin, **self.variables | variables)


def run_ops(*words: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    keys = {"AWS_ACCESS_KEY_ID": ADMINISTRATOR, "AWS_SECRET_ACCESS_KEY": ADMINISTRATOR, "AWS_CONFIG_FILE": os.devnull}
    keys |= {"AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true"}
    environment = {name: value for name, value in {**kept, **keys, **variables}.items() if value}
    return subprocess.run(
        [sys.executable, "-m", "ops", *words],
        cwd=ROOT, env=environment, input=stdin, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


MakeDesk = Callable[..., Any]


@pytest.fixture(scope="session")
def table(database: LocalAws) -> None:
    create_table(database.client("dynamodb"), TABLE)


@pytest.fixture
def make_desk(serve: Serve, database: LocalAws, table: None) -> Iterator[MakeDesk]:
    """Start a gateway with these options."""
    desks: list[Desk] = []

    async def make(**options: Any) -> Desk:
        desks.append(Desk(await serve(api(*OUR_ROUTES), **options), database))
        return desks[-1]

    yield make
    for deployment in (each for desk in desks for each in desk.opened):
        deployment.close()


@pytest.fixture
async def desk(make_desk: MakeDesk) -> Desk:
    made: Desk = await make_desk()
    return made
