"""Two hours of our stack in a few seconds, with an active client, a silent client, and one that has vanished."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.protocol import State

from local import paths
from local.apigateway.limits import Limits
from local.progress import Progress
from local.system import Options, System, run_system
from tests.fixtures import ROOT
from tests.fixtures.gateway import PATIENCE_SECONDS, receive

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning:pycognito")

CLOCK_SPEED = 720.0
LIMITS = Limits().speed_up(CLOCK_SPEED)
PAUSE_SECONDS = LIMITS.idle_seconds / 20
TWO_HOURS = 2 * 60 * 60
VANISHED = "L0SM9cOFvHcCIhw="
ADA = "ada@example.com"
PASSWORD = "correct-Horse-battery-1"
GOING_AWAY = (1001, "Going away")
FUNCTION_SECONDS = 2.0
SLOW = """
import time


def handler(event, context):
    if "slow" in (event.get("body"), *event.get("queryStringParameters", {})):
        time.sleep(60)
    return {"statusCode": 200}
"""


@pytest.fixture(scope="module", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the logs apart from those of a `make up` that runs beside the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "LOGS", tmp_path_factory.mktemp("logs"))
        yield


def make_url(system: System) -> str:
    """Return the WebSocket's URL with an ID token of Ada that is valid for a day."""
    cognito = system.aws.client("cognito-idp")
    ids = {"UserPoolId": system.user_pool_id, "ClientId": system.app_client_id}
    known = cognito.describe_user_pool_client(**ids)["UserPoolClient"]
    units = {**known["TokenValidityUnits"], "IdToken": "days"}
    flows = known["ExplicitAuthFlows"]
    cognito.update_user_pool_client(**ids, IdTokenValidity=1, TokenValidityUnits=units, ExplicitAuthFlows=flows)
    system.users.add(ADA, PASSWORD)
    return f"{system.websocket_url}?idToken={system.users.get_id_token(ADA, PASSWORD)}"


# The lives of connections


@dataclass(frozen=True)
class End:
    """Close code and reason that a client saw, and how many seconds after the story's beginning."""

    status: tuple[int | None, str | None]
    seconds: float


@dataclass(frozen=True)
class Story:
    """Two clients and a row whose connection has vanished, all there from the beginning.

    Attributes:
        rows: in the table, as soon as the silent client's was gone.
        talker_was_open: when the silent client had been closed.
    """

    talker: str
    silents_end: End
    talker_was_open: bool
    rows: set[str]
    talkers_end: End
    vanished_seconds: float


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def story(own_template: Path) -> AsyncIterator[Story]:
    options = Options(template=own_template, functions="process", clock_speed=CLOCK_SPEED)
    async with run_system(options, Progress(io.StringIO())) as system:
        websocket_url = await asyncio.to_thread(make_url, system)
        started = time.monotonic()
        await asyncio.to_thread(put_vanished, system)
        talker = await connect(websocket_url)
        (talkers_id,) = await find_rows(system) - {VANISHED}
        talking = asyncio.create_task(talk(talker))
        silent = await connect(websocket_url)
        (silents_id,) = await find_rows(system) - {VANISHED, talkers_id}

        silents_end = await wait_until_closed(silent, started)
        talker_was_open = talker.state is State.OPEN
        left = await wait_until_removed(silents_id, system)
        talkers_end = await wait_until_closed(talker, started)
        await talking
        await wait_until_removed(talkers_id, system)
        await wait_until_removed(VANISHED, system)
        yield Story(talkers_id, silents_end, talker_was_open, left, talkers_end, time.monotonic() - started)


def put_vanished(system: System) -> None:
    """Store a row as `$connect` does, for a connection without a `$disconnect`."""
    item = {"connectionId": {"S": VANISHED}, "userId": {"S": "nobody"}}
    removed_at = {"N": str(int(time.time()) + 1 + TWO_HOURS)}
    system.aws.client("dynamodb").put_item(TableName=system.table_name, Item={**item, "removedAt": removed_at})


async def find_rows(system: System) -> set[str]:
    """Return the connections in the table."""
    dynamodb = system.aws.client("dynamodb")
    found = await asyncio.to_thread(dynamodb.scan, TableName=system.table_name, ConsistentRead=True)
    return {row["connectionId"]["S"] for row in found["Items"]}


async def wait_until_removed(connection_id: str, system: System) -> set[str]:
    """Wait until the connection is not in the table; return the others."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while connection_id in (left := await find_rows(system)):
            await asyncio.sleep(PAUSE_SECONDS)
    return left


async def wait_until_closed(peer: ClientConnection, started: float) -> End:
    async with asyncio.timeout(LIMITS.connection_seconds + PATIENCE_SECONDS):
        await peer.wait_closed()
    return End((peer.close_code, peer.close_reason), time.monotonic() - started)


async def talk(peer: ClientConnection) -> None:
    """Send messages and receive their echoes until the connection is closed."""
    with suppress(ConnectionClosed):
        while True:
            await peer.send("still here")
            assert json.loads(await receive(peer)) == {"message": "still here"}
            await asyncio.sleep(PAUSE_SECONDS)


def test_silent_client_is_closed_at_the_idle_limit(story: Story) -> None:
    assert story.silents_end.status == GOING_AWAY
    assert story.silents_end.seconds >= LIMITS.idle_seconds
    assert story.talker_was_open


def test_talking_client_is_closed_at_the_connection_limit(story: Story) -> None:
    assert story.talkers_end.status == GOING_AWAY
    assert story.talkers_end.seconds >= LIMITS.connection_seconds


def test_closed_connection_leaves_the_table_long_before_its_time_to_live(story: Story) -> None:
    assert story.rows == {story.talker, VANISHED}


def test_row_of_a_vanished_connection_is_removed_by_its_time_to_live(story: Story) -> None:
    assert story.vanished_seconds >= TWO_HOURS / CLOCK_SPEED


# Function timeouts


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slow(own_template: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The WebSocket's URL of a system whose function times out for slow messages and slow connects."""
    images = tmp_path_factory.mktemp("images")
    shutil.copytree(ROOT / "images" / "authorizer", images / "authorizer")
    (images / "websocket").mkdir()
    (images / "websocket" / "websocket.py").write_text(SLOW)
    options = Options(template=own_template, functions="process", images=images, function_timeout=FUNCTION_SECONDS)
    async with run_system(options, Progress(io.StringIO())) as system:
        yield await asyncio.to_thread(make_url, system)


@pytest.mark.asyncio(loop_scope="module")
async def test_message_that_takes_too_long_is_answered_by_the_gateway(slow: str) -> None:
    async with connect(slow) as peer:
        await peer.send("slow")

        frame = json.loads(await receive(peer))

        assert frame["message"] == "Endpoint request timed out"
        assert frame.keys() == {"message", "connectionId", "requestId"}
        assert peer.state is State.OPEN


@pytest.mark.asyncio(loop_scope="module")
async def test_connect_that_takes_too_long_refuses_the_handshake(slow: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{slow}&slow=1")

    assert refused.value.response.status_code == 504
