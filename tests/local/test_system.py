"""The whole system, with functions as processes and in images, and with the token in the URL and in a subprotocol."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedOK, InvalidStatus

from local import paths
from local.demo import push
from local.example import build_handshake
from local.functions import LaunchMode
from local.lambda_.containers import LABEL
from local.progress import Progress
from local.system import Options, System, run_system
from tests.fixtures.engine import docker
from tests.fixtures.gateway import PATIENCE_SECONDS, receive
from tests.fixtures.processes import find_descendants, find_running
from tests.fixtures.tokens import read_claims

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning:pycognito"),
]

Context = dict[str, str]

AS_IN_CDK_JSON: Context = {}
SUBPROTOCOL_AND_TWO_CONNECTIONS = {"credential": "subprotocol", "maxConnectionsPerUser": "2"}

PASSWORD = "correct-Horse-battery-1"  # as the pool's policy wants it
LONG_AGO = -6 * 365 * 24 * 60 * 60  # in seconds; what is over for so long is left alone by DynamoDB's time to live


@dataclass
class RunningSystem:
    """A running system that can be ended once."""

    system: System
    end: AsyncExitStack
    others: dict[int, str]

    def find_processes(self) -> dict[int, str]:
        """Return the processes of the system, without others of this process such as the CDK's Node."""
        return {pid: command for pid, command in find_descendants(os.getpid()).items() if pid not in self.others}


@pytest.fixture(
    scope="module",
    params=[
        ("process", AS_IN_CDK_JSON),
        ("process", SUBPROTOCOL_AND_TWO_CONNECTIONS),
        ("image", SUBPROTOCOL_AND_TWO_CONNECTIONS),
    ],
    ids=["process", "process, subprotocol", "image, subprotocol"],
)
def run(request: pytest.FixtureRequest) -> tuple[LaunchMode, Context]:
    """Choose how the functions are run, and the context of the stack."""
    mode, context = request.param
    if mode == "image":
        request.getfixturevalue("engine")
    return mode, context


@pytest.fixture(scope="module")
def mode(run: tuple[LaunchMode, Context]) -> LaunchMode:
    return run[0]


@pytest.fixture(scope="module")
def by_subprotocol(run: tuple[LaunchMode, Context]) -> bool:
    """Return whether the token comes as a subprotocol. Then a user may have two connections."""
    return run[1] is SUBPROTOCOL_AND_TWO_CONNECTIONS


@pytest.fixture(scope="module")
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the system's files apart from those of a `make up` that runs beside the tests."""
    state = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "STATE", state)
        patch.setattr(paths, "LOGS", state / "logs")
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(run: tuple[LaunchMode, Context], own_state: None) -> AsyncIterator[RunningSystem]:
    others = find_descendants(os.getpid())
    mode, context = run
    async with AsyncExitStack() as stack:
        options = Options(functions=mode, context=context)
        system = await stack.enter_async_context(run_system(options, Progress(io.StringIO())))
        yield RunningSystem(system, stack, others)


@pytest.fixture(scope="module")
def system(running: RunningSystem) -> System:
    return running.system


@pytest.fixture(scope="module")
def token(system: System) -> str:
    """Ada's ID token, by SRP."""
    return sign_in(system, "ada@example.com")


def sign_in(system: System, email: str) -> str:
    """The ID token of a new user."""
    system.users.add(email, PASSWORD)
    return system.users.get_id_token(email, PASSWORD)


async def find_rows(system: System, **conditions: Any) -> list[dict[str, str]]:
    """Return the rows of the table, or those that a query with these conditions finds."""
    dynamodb = system.aws.client("dynamodb")
    find = dynamodb.query if conditions else dynamodb.scan
    found = await asyncio.to_thread(find, TableName=system.table_name, **conditions)
    return [{name: next(iter(value.values())) for name, value in item.items()} for item in found["Items"]]


async def wait_until_left(system: System, count: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(await find_rows(system)) != count:
            await asyncio.sleep(0.02)


@pytest_asyncio.fixture(loop_scope="module")
async def phone(system: System, token: str) -> AsyncIterator[ClientConnection]:
    """Ada's connection, the only one that is open."""
    async with connect(**build_handshake(system, token)) as connected:
        yield connected
    await wait_until_left(system, 0)


async def get_refusal_status(**opening: Any) -> int:
    with pytest.raises(InvalidStatus) as error:
        await connect(**opening)
    return error.value.response.status_code


async def test_gateway_expects_the_credential_of_the_context(system: System, by_subprotocol: bool) -> None:
    url = system.websocket_url
    offered = {"uri": url, "subprotocols": ["echo.v1", "idToken.abc"]}
    expected = offered if by_subprotocol else {"uri": f"{url}?idToken=abc"}

    assert build_handshake(system, "abc") == {**expected, "proxy": None}


async def test_token_is_no_part_of_the_answer_to_its_handshake(
    phone: ClientConnection, token: str, by_subprotocol: bool
) -> None:
    assert phone.subprotocol == ("echo.v1" if by_subprotocol else None)
    assert phone.response is not None
    assert token not in str([*phone.response.headers.raw_items()])


async def test_connection_is_stored_with_its_user_until_the_token_expires(
    system: System, token: str, phone: ClientConnection
) -> None:
    (row,) = await find_rows(system)

    assert (row["userId"], int(row["removedAt"])) == (read_claims(token)["sub"], read_claims(token)["exp"])
    assert row.keys() == {"connectionId", "userId", "connectedAt", "removedAt"}


async def test_message_is_echoed(phone: ClientConnection) -> None:
    await phone.send('{"action": "ひと", "text": "two\nlines"}')

    assert json.loads(await receive(phone)) == {"message": '{"action": "ひと", "text": "two\nlines"}'}


async def test_keepalive_is_answered_and_not_echoed(phone: ClientConnection) -> None:
    await phone.send('{"action":"keepalive"}')

    assert json.loads(await receive(phone)) == {"keepalive": True}


async def test_user_is_reached_on_every_connection(system: System, token: str, phone: ClientConnection) -> None:
    async with connect(**build_handshake(system, token)) as laptop:
        assert await asyncio.to_thread(push, system, read_claims(token)["sub"], "news") == 2

        assert [await receive(peer) for peer in (phone, laptop)] == ["news", "news"]


async def test_closed_connection_is_forgotten(system: System, phone: ClientConnection) -> None:
    assert len(await find_rows(system)) == 1

    await phone.close()

    await wait_until_left(system, 0)


async def put_row(system: System, connection_id: str, user_id: str, seconds: int) -> None:
    """Store a row that expires in so many seconds."""
    item = {"connectionId": {"S": connection_id}, "userId": {"S": user_id}}
    removed_at = {"N": str(int(time.time()) + seconds)}
    dynamodb = system.aws.client("dynamodb")
    await asyncio.to_thread(dynamodb.put_item, TableName=system.table_name, Item={**item, "removedAt": removed_at})


async def test_push_skips_a_connection_whose_token_has_expired_and_closes_it(system: System) -> None:
    carol = sign_in(system, "carol@example.com")
    async with connect(**build_handshake(system, carol)) as phone:
        (row,) = await find_rows(system)
        await put_row(system, row["connectionId"], row["userId"], LONG_AGO)

        reached = await asyncio.to_thread(push, system, row["userId"], "news")

        with pytest.raises(ConnectionClosedOK):
            await receive(phone)
    assert (reached, phone.close_code, phone.close_reason) == (0, 1000, "Connection Closed Normally")
    await wait_until_left(system, 0)  # as `$disconnect` does


@pytest.mark.parametrize("seconds", [60, LONG_AGO], ids=["its time not over", "its time over"])
async def test_push_deletes_gone_connections_and_reaches_the_others(
    system: System, phone: ClientConnection, seconds: int
) -> None:
    (row,) = await find_rows(system)
    await put_row(system, "G0neOFvHcCIhwAA=", row["userId"], seconds)

    reached = await asyncio.to_thread(push, system, row["userId"], "news")

    assert (reached, await receive(phone)) == (1, "news")
    assert await find_rows(system) == [row]


async def test_limit_of_connections_applies_if_the_stack_has_one(system: System, by_subprotocol: bool) -> None:
    bobs = build_handshake(system, sign_in(system, "bob@example.com"))

    async with connect(**bobs), connect(**bobs) as laptop:
        if by_subprotocol:
            assert await get_refusal_status(**bobs) == 429
            await laptop.close()
            await wait_until_left(system, 1)
        async with connect(**bobs):
            pass

    await wait_until_left(system, 0)


async def test_client_without_a_token_is_refused(system: System) -> None:
    assert await get_refusal_status(uri=system.websocket_url) == 401


async def test_client_with_its_token_in_the_other_place_is_refused(
    system: System, token: str, by_subprotocol: bool
) -> None:
    if by_subprotocol:
        opening: dict[str, Any] = {"uri": f"{system.websocket_url}?idToken={token}"}
    else:
        opening = {"uri": system.websocket_url, "subprotocols": ["echo.v1", f"idToken.{token}"]}

    assert await get_refusal_status(**opening) == 401


async def test_client_with_garbage_for_a_token_is_refused(system: System) -> None:
    assert await get_refusal_status(**build_handshake(system, "garbage")) == 403


async def test_client_with_a_forged_token_is_refused(system: System, token: str) -> None:
    header, payload, signature = token.split(".")
    forged = f"{header}.{payload}.{signature[:-10]}{signature[-10:].swapcase()}"

    assert await get_refusal_status(**build_handshake(system, forged)) == 403


def find_containers(processes: dict[int, str]) -> list[str]:
    """Return the names of the containers that these processes run."""
    return re.findall(r"--name=(local-\S+)", "\n".join(processes.values()))


async def test_stop_closes_connections_and_leaves_nothing_running(
    running: RunningSystem, mode: LaunchMode, token: str
) -> None:
    """This must be the last test, because it stops the system."""
    peer = await connect(**build_handshake(running.system, token))
    processes = running.find_processes()
    names = find_containers(processes)
    if names:  # and one that its `docker run` did not live to see started
        names.append(docker("create", f"--label={LABEL}", "websocket:dev").stdout.strip())

    await running.end.aclose()

    await peer.wait_closed()
    assert (peer.close_code, peer.close_reason) == (1001, "Going away")
    assert len(processes) >= 3  # the local AWS and two functions
    assert find_running(processes) == []
    assert bool(names) is (mode == "image")
    assert [name for name in names if docker("inspect", name).returncode == 0] == []
