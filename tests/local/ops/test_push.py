"""Pushes to open connections, and to connections that are gone, expired, throttled or broken."""

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
from tests.fixtures.gateway import receive, wait_until_closed
from tests.fixtures.network import Answer, LoopbackServer, Request, find_free_port
from tests.fixtures.ops import GONE, LONG_AGO, TABLE, LocalDeployment


@pytest.fixture
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the delays between retries."""
    monkeypatch.setattr(ops_errors, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(ops_errors, "MAX_DELAY_SECONDS", 0.05)


async def push_news(local_deployment: LocalDeployment, **changes: Any) -> Counts:
    return await asyncio.to_thread(push, local_deployment.open_deployment(**changes), b"news", local_deployment.user_id)


async def test_all_connections_of_the_user_get_the_message(local_deployment: LocalDeployment) -> None:
    peers = [peer for peer, _ in [await local_deployment.connect() for _ in range(3)]]

    counts = await push_news(local_deployment)

    assert counts.outcomes == {"delivered": 3}
    assert [await receive(peer) for peer in peers] == ["news"] * 3


async def test_connections_of_other_users_do_not_get_the_message(local_deployment: LocalDeployment) -> None:
    other, _ = await dataclasses.replace(local_deployment, user_id="another").connect()

    await push_news(local_deployment)
    await asyncio.to_thread(push, local_deployment.open_deployment(), b"for all")

    assert await receive(other) == "for all"


async def test_connection_with_an_expired_token_is_closed_without_the_message(
    local_deployment: LocalDeployment,
) -> None:
    peer, _ = await local_deployment.connect(seconds=LONG_AGO)

    counts = await push_news(local_deployment)

    assert await wait_until_closed(peer) == (1000, "Connection Closed Normally")
    assert counts.outcomes == {"expired": 1}


@pytest.mark.parametrize("seconds", [60, LONG_AGO], ids=["open", "expired"])
async def test_row_of_a_gone_connection_is_deleted_and_the_others_are_reached(
    local_deployment: LocalDeployment, seconds: int
) -> None:
    peer, _ = await local_deployment.connect()
    await local_deployment.store_row(GONE, seconds=seconds)

    counts = await push_news(local_deployment)

    assert counts.outcomes == {"delivered": 1, "gone": 1}
    assert await receive(peer) == "news"
    assert await local_deployment.get_row(GONE) is None


@pytest.mark.parametrize(
    ("age", "kept"),
    [(0, True), (HANDSHAKE_SECONDS - 5, True), (HANDSHAKE_SECONDS + 1, False), (None, False)],
    ids=["now", "25 s ago", "31 s ago", "stored by an earlier version"],
)
async def test_row_of_a_connection_that_got_410_is_kept_for_30_seconds(
    local_deployment: LocalDeployment, age: int | None, kept: bool
) -> None:
    await local_deployment.store_row(GONE, age=age)

    counts = await push_news(local_deployment)

    assert counts.outcomes == {"failed" if kept else "gone": 1}
    assert (await local_deployment.get_row(GONE) is not None) is kept


async def test_throttled_posts_are_retried_until_all_are_delivered(local_deployment: LocalDeployment) -> None:
    peers = [peer for peer, _ in [await local_deployment.connect() for _ in range(20)]]
    local_deployment.throttle(rate=100)

    counts = await push_news(local_deployment)

    assert counts.outcomes == {"delivered": 20}
    assert [await receive(peer) for peer in peers] == ["news"] * 20


async def test_connection_that_stays_throttled_counts_as_failed(
    local_deployment: LocalDeployment, short_delays: None
) -> None:
    await local_deployment.store_row(GONE)
    local_deployment.throttle(rate=0)

    counts = await push_news(local_deployment)

    assert counts.outcomes == {"failed": 1}
    assert counts.reasons == {"LimitExceededException: Too Many Requests": 1}


class FlakyServer(LoopbackServer):
    """A server that answers 500 twice, then 200."""

    def respond(self, request: Request) -> Answer:
        return Answer(500 if len(self.requests) <= 2 else 200, headers={"Content-Length": "0"})


@pytest.fixture
def flaky_server() -> Iterator[FlakyServer]:
    with FlakyServer(Answer()) as server:
        yield server


async def test_faults_of_the_service_are_retried(
    local_deployment: LocalDeployment, flaky_server: FlakyServer, short_delays: None
) -> None:
    await local_deployment.store_row(GONE)

    counts = await push_news(local_deployment, callback_url=f"{flaky_server.url}/prod")

    assert counts.outcomes == {"delivered": 1}
    assert [request.path for request in flaky_server.requests] == ["/prod/%40connections/G0neOFvHcCIhwAA%3D"] * 3


async def test_invalid_connection_id_does_not_fail_the_others(local_deployment: LocalDeployment) -> None:
    peer, _ = await local_deployment.connect()
    await local_deployment.store_row("no id of API Gateway")

    counts = await push_news(local_deployment)

    assert counts.outcomes == {"delivered": 1, "failed": 1}
    assert await receive(peer) == "news"


async def test_call_whose_connection_is_lost_counts_as_failed(
    local_deployment: LocalDeployment, short_delays: None
) -> None:
    await local_deployment.store_row(GONE)
    deployment = local_deployment.open_deployment()
    lost = ConnectionClosedError(endpoint_url=deployment.management.url)
    deployment.management.post = Mock(side_effect=lost)  # type: ignore[method-assign]

    counts = await asyncio.to_thread(push, deployment, b"news", local_deployment.user_id)

    assert counts.outcomes == {"failed": 1}
    assert "Connection was closed" in "".join(counts.reasons)


async def test_network_error_ends_the_push(local_deployment: LocalDeployment, short_delays: None) -> None:
    await local_deployment.store_row(GONE)

    with pytest.raises(EndpointConnectionError):
        await push_news(local_deployment, callback_url=f"http://127.0.0.1:{find_free_port()}/prod")


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
async def test_malformed_time_is_unknown(local_deployment: LocalDeployment, row: dict[str, Any]) -> None:
    peer, connection_id = await local_deployment.gateway.connect_with_id()
    await local_deployment.store_row(connection_id, **row, age=None)

    (connection,) = await asyncio.to_thread(
        lambda: list(connections_of(local_deployment.open_deployment(), local_deployment.user_id))
    )
    counts = await push_news(local_deployment)

    assert [getattr(connection, name) for name in ("connected_at", "removed_at")].count(0) >= 1
    assert (counts.outcomes, await receive(peer)) == ({"delivered": 1}, "news")


def test_row_without_a_user_is_parsed() -> None:
    assert Connection.parse({"connectionId": {"S": GONE}}) == Connection(GONE)


def test_interrupt_while_threads_start_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    submit = ThreadPoolExecutor.submit
    started: list[Any] = []
    done: list[int] = []

    def submit_or_interrupt(pool: ThreadPoolExecutor, work: Any) -> Any:
        if len(started) == 2:
            raise KeyboardInterrupt
        started.append(work)
        return submit(pool, work)

    def work(connection: Connection) -> tuple[str, str]:
        time.sleep(0.001)
        done.append(connection.connected_at)
        return "delivered", ""

    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit_or_interrupt)
    with pytest.raises(KeyboardInterrupt):
        run((Connection(GONE) for _ in range(10_000)), work, 8, lambda _: None)

    assert len(done) < 5_000


async def test_denied_call_ends_the_push(local_deployment: LocalDeployment) -> None:
    deployment = local_deployment.open_deployment()
    deployment._session.set_credentials("AKIDEXAMPLE", "wrong")
    for number in range(50):
        await local_deployment.store_row(f"G0ne{number:04}vHcCIhw=")
    seen: list[int] = []

    with pytest.raises(ClientError, match="security token included in the request is invalid"):
        await asyncio.to_thread(
            push,
            deployment,
            b"news",
            local_deployment.user_id,
            report=lambda counts: seen.append(counts.outcomes.total()),
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
async def test_invalid_message_is_refused_before_the_first_call(
    local_deployment: LocalDeployment, message: bytes, why: str
) -> None:
    with Stubber(local_deployment.open_deployment().dynamodb), pytest.raises(OpsError, match=why):
        push(local_deployment.open_deployment(), message, local_deployment.user_id)


async def test_largest_message_arrives(local_deployment: LocalDeployment) -> None:
    peer, _ = await local_deployment.connect()

    await asyncio.to_thread(
        push, local_deployment.open_deployment(), b"x" * MAX_MESSAGE_BYTES, local_deployment.user_id
    )

    assert len(await receive(peer)) == MAX_MESSAGE_BYTES


async def test_dry_run_counts_and_changes_nothing(local_deployment: LocalDeployment) -> None:
    peer, _ = await local_deployment.connect()
    await local_deployment.connect(seconds=LONG_AGO)
    await local_deployment.store_row(GONE)

    counts = await asyncio.to_thread(
        push, local_deployment.open_deployment(), b"news", local_deployment.user_id, dry_run=True
    )
    await push_news(local_deployment)

    assert counts.outcomes == {"delivered": 2, "expired": 1}
    assert await receive(peer) == "news"


async def test_all_rows_of_large_pages_are_read(local_deployment: LocalDeployment) -> None:
    """Read 2.4 MB of rows, because DynamoDB ends a page at 1 MB."""
    ids = {f"G0ne{number:04}vHcCIhw=" for number in range(12)}
    for connection_id in ids:
        await local_deployment.store_row(connection_id, padding={"S": "x" * 200_000})

    found = await asyncio.to_thread(
        lambda: list(connections_of(local_deployment.open_deployment(), local_deployment.user_id))
    )

    assert {each.id for each in found} == ids


def test_next_page_is_read_when_its_first_row_is_needed(local_deployment: LocalDeployment) -> None:
    deployment = local_deployment.open_deployment()
    rows = [{"connectionId": {"S": name}, "userId": {"S": "ada"}} for name in ("phone", "laptop", "tablet")]
    after = {"connectionId": {"S": "laptop"}}
    with Stubber(deployment.dynamodb) as stubber:
        stubber.add_response("scan", {"Items": rows[:2], "LastEvaluatedKey": after}, {"TableName": TABLE})
        connections = connections_of(deployment)

        assert [next(connections), next(connections)] == [Connection("phone", "ada"), Connection("laptop", "ada")]

        stubber.add_response("scan", {"Items": rows[2:]}, {"TableName": TABLE, "ExclusiveStartKey": after})
        assert list(connections) == [Connection("tablet", "ada")]
