"""The whole system, once with the functions as processes and once in their images."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from local import launch
from local import system as local_system
from local.aws import client
from local.progress import Progress
from local.system import Options, System, running
from tests.conftest import docker
from tests.local.conftest import PATIENCE_SECONDS, alive, descendants, received

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning:pycognito"),
]

Way = Literal["process", "image"]

ADA = "ada@example.com"
PASSWORD = "correct-Horse-battery-1"  # as the pool's policy wants it


@dataclass
class Desk:
    """A running system that can be ended once."""

    system: System
    end: AsyncExitStack
    others: dict[int, str]

    def processes(self) -> dict[int, str]:
        """Those of the system: others of this process, such as the CDK's Node, are none of its business."""
        return {pid: command for pid, command in descendants(os.getpid()).items() if pid not in self.others}


@pytest.fixture(scope="module", params=["process", "image"])
def way(request: pytest.FixtureRequest) -> Way:
    """How the functions are run."""
    if request.param == "image":
        request.getfixturevalue("engine")
        return "image"
    return "process"


@pytest.fixture(scope="module")
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The system's files are not in the way of a `make up` beside the tests."""
    state = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_system, "STATE", state)
        patch.setattr(local_system, "LOGS", state / "logs")
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(way: Way, own_state: None) -> AsyncIterator[Desk]:
    others = descendants(os.getpid())
    async with AsyncExitStack() as stack:
        system = await stack.enter_async_context(running(Options(functions=way), Progress(io.StringIO())))
        yield Desk(system, stack, others)


@pytest.fixture(scope="module")
def system(desk: Desk) -> System:
    return desk.system


@pytest.fixture(scope="module")
def token(system: System) -> str:
    """Ada's ID token, by SRP."""
    system.users.add(ADA, PASSWORD)
    return system.users.id_token(ADA, PASSWORD)


def claims(token: str) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))
    return decoded


async def rows(system: System, **conditions: Any) -> list[dict[str, str]]:
    """What the table holds: everything, or what a query for it finds."""
    dynamodb = system.aws.client("dynamodb")
    find = dynamodb.query if conditions else dynamodb.scan
    found = await asyncio.to_thread(find, TableName=system.table_name, **conditions)
    return [{name: next(iter(value.values())) for name, value in item.items()} for item in found["Items"]]


async def until_empty(system: System) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await rows(system):
            await asyncio.sleep(0.02)


@pytest_asyncio.fixture(loop_scope="module")
async def phone(system: System, token: str) -> AsyncIterator[ClientConnection]:
    """The only connection there is, Ada's."""
    async with connect(f"{system.websocket_url}?idToken={token}") as connected:
        yield connected
    await until_empty(system)


async def refused(system: System, query: str) -> int:
    with pytest.raises(InvalidStatus) as error:
        await connect(f"{system.websocket_url}{query}")
    return error.value.response.status_code


async def test_connection_is_stored_with_its_user_until_the_token_expires(
    system: System, token: str, phone: ClientConnection
) -> None:
    (row,) = await rows(system)

    assert (row["userId"], int(row["removedAt"])) == (claims(token)["sub"], claims(token)["exp"] + 60)
    assert row.keys() == {"connectionId", "userId", "removedAt"}


async def test_message_is_echoed(phone: ClientConnection) -> None:
    await phone.send('{"action": "ひと", "text": "two\nlines"}')

    assert json.loads(await received(phone)) == {"message": '{"action": "ひと", "text": "two\nlines"}'}


async def test_user_is_reached_on_every_connection(system: System, token: str, phone: ClientConnection) -> None:
    async with connect(f"{system.websocket_url}?idToken={token}") as laptop:
        user = {":user": {"S": claims(token)["sub"]}}
        found = await rows(
            system,
            IndexName="userIdIndex",
            KeyConditionExpression="userId = :user",
            ExpressionAttributeValues=user,
        )
        management = client("apigatewaymanagementapi", system.callback_url)
        for row in found:
            await asyncio.to_thread(management.post_to_connection, ConnectionId=row["connectionId"], Data=b"news")

        assert [await received(peer) for peer in (phone, laptop)] == ["news", "news"]


async def test_closed_connection_is_forgotten(system: System, phone: ClientConnection) -> None:
    assert len(await rows(system)) == 1

    await phone.close()

    await until_empty(system)


@pytest.mark.parametrize("query", ["", "?idToken=", "?other=abc"])
async def test_client_without_a_token_is_refused(system: System, query: str) -> None:
    assert await refused(system, query) == 401


async def test_client_with_garbage_for_a_token_is_refused(system: System) -> None:
    assert await refused(system, "?idToken=garbage") == 403


async def test_client_with_a_forged_token_is_refused(system: System, token: str) -> None:
    header, payload, signature = token.split(".")
    forged = f"{header}.{payload}.{signature[:-10]}{signature[-10:].swapcase()}"

    assert await refused(system, f"?idToken={forged}") == 403


def containers(processes: dict[int, str]) -> list[str]:
    """The names of those that these processes run."""
    return re.findall(r"--name=(local-\S+)", "\n".join(processes.values()))


async def test_end_closes_what_is_open_and_leaves_nothing_running(desk: Desk, way: Way, token: str) -> None:
    """The last test: afterwards there is no system any more."""
    peer = await connect(f"{desk.system.websocket_url}?idToken={token}")
    processes = desk.processes()
    names = containers(processes)
    if names:  # and one that its `docker run` did not live to see started
        names.append(docker("create", f"--label={launch.LABEL}", "websocket:dev").stdout.strip())

    await desk.end.aclose()

    await peer.wait_closed()
    assert (peer.close_code, peer.close_reason) == (1001, "Going away")
    assert len(processes) >= 3  # the local AWS and two functions
    assert alive(processes) == []
    assert bool(names) is (way == "image")
    assert [name for name in names if docker("inspect", name).returncode == 0] == []
