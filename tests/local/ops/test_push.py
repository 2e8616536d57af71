"""Pushes to real connections, and to connections that are gone, expired, throttled or broken."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError
from botocore.stub import Stubber

from ops import Connection, Counts, OpsError, connections_of, push
from ops import errors as ops_errors
from ops.connections import HANDSHAKE_SECONDS, MAX_MESSAGE_BYTES, run
from tests.fixtures.gateway import closed, received
from tests.fixtures.network import Answer, LoopbackServer, Request, free_port
from tests.fixtures.ops import GONE, LONG_AGO, TABLE, Desk


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without long waits."""
    monkeypatch.setattr(ops_errors, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(ops_errors, "MAX_DELAY_SECONDS", 0.05)


async def push_news(desk: Desk, **changes: Any) -> Counts:
    return await asyncio.to_thread(push, desk.deployment(**changes), b"news", desk.user_id)


async def test_every_connection_of_the_user_gets_the_message(desk: Desk) -> None:
    peers = [peer for peer, _ in [await desk.connect() for _ in range(3)]]

    counts = await push_news(desk)

    assert counts.outcomes == {"delivered": 3}
    assert [await received(peer) for peer in peers] == ["news"] * 3


async def test_connections_of_other_users_do_not_get_the_message(desk: Desk) -> None:
    other, _ = await dataclasses.replace(desk, user_id="another").connect()

    await push_news(desk)
    await asyncio.to_thread(push, desk.deployment(), b"for all")

    assert await received(other) == "for all"


async def test_connection_whose_token_has_expired_is_closed_instead(desk: Desk) -> None:
    peer, _ = await desk.connect(seconds=LONG_AGO)

    counts = await push_news(desk)

    assert await closed(peer) == (1000, "Connection Closed Normally")
    assert counts.outcomes == {"expired": 1}


@pytest.mark.parametrize("seconds", [60, LONG_AGO], ids=["open", "expired"])
async def test_row_of_a_connection_that_has_gone_is_deleted_and_the_others_are_reached(
    desk: Desk, seconds: int
) -> None:
    peer, _ = await desk.connect()
    await desk.put(GONE, seconds=seconds)

    counts = await push_news(desk)

    assert counts.outcomes == {"delivered": 1, "gone": 1}
    assert await received(peer) == "news"
    assert await desk.row(GONE) is None


@pytest.mark.parametrize(
    ("age", "kept"),
    [(0, True), (HANDSHAKE_SECONDS - 5, True), (HANDSHAKE_SECONDS + 1, False), (None, False)],
    ids=["now", "25 s ago", "31 s ago", "stored by an earlier version"],
)
async def test_row_of_a_connection_that_got_410_is_kept_for_30_seconds(desk: Desk, age: int | None, kept: bool) -> None:
    await desk.put(GONE, age=age)

    counts = await push_news(desk)

    assert counts.outcomes == {"failed" if kept else "gone": 1}
    assert (await desk.row(GONE) is not None) is kept


async def test_throttled_posts_are_retried_until_all_are_delivered(desk: Desk) -> None:
    peers = [peer for peer, _ in [await desk.connect() for _ in range(20)]]
    desk.throttle(rate=100)

    counts = await push_news(desk)

    assert counts.outcomes == {"delivered": 20}
    assert [await received(peer) for peer in peers] == ["news"] * 20


async def test_connection_that_stays_throttled_has_failed(desk: Desk, quick: None) -> None:
    await desk.put(GONE)
    desk.throttle(rate=0)

    counts = await push_news(desk)

    assert counts.outcomes == {"failed": 1}
    assert counts.reasons == {"LimitExceededException: Too Many Requests": 1}


class Flaky(LoopbackServer):
    """A server that answers 500 twice, then 200."""

    def respond(self, request: Request) -> Answer:
        return Answer(500 if len(self.requests) <= 2 else 200, headers={"Content-Length": "0"})


@pytest.fixture
def flaky() -> Iterator[Flaky]:
    with Flaky(Answer()) as server:
        yield server


async def test_faults_of_the_service_are_retried(desk: Desk, flaky: Flaky, quick: None) -> None:
    await desk.put(GONE)

    counts = await push_news(desk, callback_url=f"{flaky.url}/prod")

    assert counts.outcomes == {"delivered": 1}
    assert [request.path for request in flaky.requests] == ["/prod/%40connections/G0neOFvHcCIhwAA%3D"] * 3


async def test_invalid_connection_id_fails_alone(desk: Desk) -> None:
    peer, _ = await desk.connect()
    await desk.put("no id of API Gateway")

    counts = await push_news(desk)

    assert counts.outcomes == {"delivered": 1, "failed": 1}
    assert await received(peer) == "news"


async def test_lost_connection_of_one_call_fails_alone(desk: Desk, quick: None) -> None:
    await desk.put(GONE)
    deployment = desk.deployment()
    lost = ConnectionClosedError(endpoint_url=deployment.management.url)
    deployment.management.post = Mock(side_effect=lost)  # type: ignore[method-assign]

    counts = await asyncio.to_thread(push, deployment, b"news", desk.user_id)

    assert counts.outcomes == {"failed": 1}
    assert "Connection was closed" in "".join(counts.reasons)


async def test_network_error_ends_the_push(desk: Desk, quick: None) -> None:
    await desk.put(GONE)

    with pytest.raises(EndpointConnectionError):
        await push_news(desk, callback_url=f"http://127.0.0.1:{free_port()}/prod")


@pytest.mark.parametrize(
    "row",
    [
        {"connectedAt": {"N": "1.5"}},
        {"removedAt": {"N": "1.5"}},
        {"connectedAt": {"N": "-1e15"}},
        {"removedAt": {"S": ""}},
    ],
    ids=str,
)
async def test_malformed_time_is_unknown(desk: Desk, row: dict[str, Any]) -> None:
    peer, connection_id = await desk.gateway.connected()
    await desk.put(connection_id, **row, age=None)

    (connection,) = await asyncio.to_thread(lambda: list(connections_of(desk.deployment(), desk.user_id)))
    counts = await push_news(desk)

    assert [getattr(connection, name) for name in ("connected_at", "removed_at")].count(0) >= 1
    assert (counts.outcomes, await received(peer)) == ({"delivered": 1}, "news")


def test_row_without_a_user_is_a_connection() -> None:
    assert Connection.parse({"connectionId": {"S": GONE}}) == Connection(GONE)


def test_interrupt_while_threads_start_stops_those_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    submit = ThreadPoolExecutor.submit
    started: list[Any] = []
    done: list[int] = []

    def interrupted(pool: ThreadPoolExecutor, work: Any) -> Any:
        if len(started) == 2:
            raise KeyboardInterrupt
        started.append(work)
        return submit(pool, work)

    def work(connection: Connection) -> tuple[str, str]:
        time.sleep(0.001)
        done.append(connection.connected_at)
        return "delivered", ""

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run((Connection(GONE) for _ in range(10_000)), work, 8, lambda _: None)

    assert len(done) < 5_000


async def test_refused_caller_ends_the_push(desk: Desk) -> None:
    deployment = desk.deployment()
    deployment._session.set_credentials("AKIDEXAMPLE", "wrong")
    for number in range(50):
        await desk.put(f"G0ne{number:04}vHcCIhw=")
    seen: list[int] = []

    with pytest.raises(ClientError, match="security token included in the request is invalid"):
        await asyncio.to_thread(
            push, deployment, b"news", desk.user_id, report=lambda counts: seen.append(counts.outcomes.total())
        )
    assert seen[-1] == 0


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "the message is empty"),
        (b"x" * (MAX_MESSAGE_BYTES + 1), "more than 131,072 bytes"),
        (b"caf\xe9", "not UTF-8"),
    ],
    ids=["empty", "too large", "not UTF-8"],
)
async def test_message_that_nobody_can_get_is_refused_before_the_first_call(
    desk: Desk, message: bytes, why: str
) -> None:
    with Stubber(desk.deployment().dynamodb), pytest.raises(OpsError, match=why):
        push(desk.deployment(), message, desk.user_id)


async def test_largest_message_arrives(desk: Desk) -> None:
    peer, _ = await desk.connect()

    await asyncio.to_thread(push, desk.deployment(), b"x" * MAX_MESSAGE_BYTES, desk.user_id)

    assert len(await received(peer)) == MAX_MESSAGE_BYTES


async def test_dry_run_counts_and_changes_nothing(desk: Desk) -> None:
    peer, _ = await desk.connect()
    await desk.connect(seconds=LONG_AGO)
    await desk.put(GONE)

    counts = await asyncio.to_thread(push, desk.deployment(), b"news", desk.user_id, dry_run=True)
    await push_news(desk)

    assert counts.outcomes == {"delivered": 2, "expired": 1}
    assert await received(peer) == "news"


async def test_all_rows_of_large_pages_are_read(desk: Desk) -> None:
    """DynamoDB ends a page at 1 MB."""
    ids = {f"G0ne{number:04}vHcCIhw=" for number in range(12)}
    for connection_id in ids:
        await desk.put(connection_id, padding={"S": "x" * 200_000})

    found = await asyncio.to_thread(lambda: list(connections_of(desk.deployment(), desk.user_id)))

    assert {each.id for each in found} == ids


def test_next_page_is_read_when_it_is_needed(desk: Desk) -> None:
    deployment = desk.deployment()
    rows = [{"connectionId": {"S": name}, "userId": {"S": "ada"}} for name in ("phone", "laptop", "tablet")]
    after = {"connectionId": {"S": "laptop"}}
    with Stubber(deployment.dynamodb) as stubber:
        stubber.add_response("scan", {"Items": rows[:2], "LastEvaluatedKey": after}, {"TableName": TABLE})
        connections = connections_of(deployment)

        assert [next(connections), next(connections)] == [Connection("phone", "ada"), Connection("laptop", "ada")]

        stubber.add_response("scan", {"Items": rows[2:]}, {"TableName": TABLE, "ExclusiveStartKey": after})
        assert list(connections) == [Connection("tablet", "ada")]
