"""A kick closes connections, and writes to each row who closed its connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError

from ops import Counts, kick
from tests.fixtures.gateway import wait_until_closed
from tests.fixtures.ops import GONE, LONG_AGO, LocalDeployment


async def kick_user(local_deployment: LocalDeployment, **options: Any) -> Counts:
    return await asyncio.to_thread(
        partial(kick, local_deployment.open_deployment(), "ada", user_id=local_deployment.user_id, **options)
    )


async def test_all_connections_of_the_user_are_closed(local_deployment: LocalDeployment) -> None:
    peers = [peer for peer, _ in [await local_deployment.connect(), await local_deployment.connect(seconds=LONG_AGO)]]

    counts = await kick_user(local_deployment)

    assert counts.outcomes == {"kicked": 2}
    assert [await wait_until_closed(peer) for peer in peers] == [(1000, "Connection Closed Normally")] * 2


async def test_row_has_ended_by_before_the_connection_is_closed(local_deployment: LocalDeployment) -> None:
    _, connection_id = await local_deployment.connect()
    deployment = local_deployment.open_deployment()
    rows: list[dict[str, Any] | None] = []
    delete: Callable[[str], None] = deployment.management.delete

    def delete_after_reading(connection_id: str) -> None:
        rows.append(local_deployment.read_row(connection_id))
        delete(connection_id)

    deployment.management.delete = delete_after_reading  # type: ignore[method-assign]
    await asyncio.to_thread(partial(kick, deployment, "ada", connection_id=connection_id))

    assert [row and row["endedBy"] for row in rows] == [{"S": "ada"}]


async def test_row_has_no_ended_by_if_the_connection_cannot_be_closed(local_deployment: LocalDeployment) -> None:
    _, connection_id = await local_deployment.connect()
    deployment = local_deployment.open_deployment()
    denied = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "DeleteConnection")
    deployment.management.delete = Mock(side_effect=denied)  # type: ignore[method-assign]

    with pytest.raises(ClientError):
        await asyncio.to_thread(partial(kick, deployment, "ada", connection_id=connection_id))

    row = await local_deployment.get_row(connection_id)
    assert row
    assert "endedBy" not in row


async def test_connection_without_a_row_is_closed_and_gets_no_row(local_deployment: LocalDeployment) -> None:
    peer, connection_id = await local_deployment.gateway.connect_with_id()

    counts = await asyncio.to_thread(
        partial(kick, local_deployment.open_deployment(), "ada", connection_id=connection_id)
    )

    assert counts.outcomes == {"kicked": 1}
    assert await wait_until_closed(peer) == (1000, "Connection Closed Normally")
    assert await local_deployment.get_row(connection_id) is None


@pytest.mark.parametrize(("age", "outcome"), [(60, "gone"), (0, "failed")], ids=["old", "may still be opening"])
async def test_row_of_a_gone_connection_is_deleted_if_it_is_older_than_the_handshake(
    local_deployment: LocalDeployment, age: int, outcome: str
) -> None:
    await local_deployment.store_row(GONE, age=age)

    counts = await kick_user(local_deployment)

    assert counts.outcomes == {outcome: 1}
    assert (await local_deployment.get_row(GONE) is None) is (outcome == "gone")


async def test_dry_run_counts_and_changes_nothing(local_deployment: LocalDeployment) -> None:
    peer, connection_id = await local_deployment.connect()

    counts = await kick_user(local_deployment, dry_run=True)
    row = await local_deployment.get_row(connection_id)

    assert counts.outcomes == {"kicked": 1}
    assert row is not None
    assert "endedBy" not in row
    await peer.ping()


@pytest.mark.parametrize("options", [{}, {"user_id": "ada", "connection_id": GONE}], ids=["neither", "both"])
async def test_user_or_connection_must_be_given(local_deployment: LocalDeployment, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="either a user_id or a connection_id"):
        kick(local_deployment.open_deployment(), "ada", **options)
