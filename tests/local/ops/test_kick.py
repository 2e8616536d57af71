"""Kicks close connections, and write to the rows who closed them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError

from ops import Counts, kick
from tests.fixtures.gateway import closed
from tests.fixtures.ops import GONE, LONG_AGO, Desk


async def kick_user(desk: Desk, **options: Any) -> Counts:
    return await asyncio.to_thread(partial(kick, desk.deployment(), "ada", user_id=desk.user_id, **options))


async def test_every_connection_of_the_user_is_ended(desk: Desk) -> None:
    peers = [peer for peer, _ in [await desk.connect(), await desk.connect(seconds=LONG_AGO)]]

    counts = await kick_user(desk)

    assert counts.outcomes == {"kicked": 2}
    assert [await closed(peer) for peer in peers] == [(1000, "Connection Closed Normally")] * 2


async def test_row_says_who_ends_the_connection_before_it_ends(desk: Desk) -> None:
    _, connection_id = await desk.connect()
    deployment = desk.deployment()
    rows: list[dict[str, Any] | None] = []
    delete: Callable[[str], None] = deployment.management.delete

    def delete_after_reading(connection_id: str) -> None:
        rows.append(desk.read_row(connection_id))
        delete(connection_id)

    deployment.management.delete = delete_after_reading  # type: ignore[method-assign]
    await asyncio.to_thread(partial(kick, deployment, "ada", connection_id=connection_id))

    assert [row and row["endedBy"] for row in rows] == [{"S": "ada"}]


async def test_row_of_a_connection_that_could_not_be_ended_names_nobody(desk: Desk) -> None:
    _, connection_id = await desk.connect()
    deployment = desk.deployment()
    denied = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "DeleteConnection")
    deployment.management.delete = Mock(side_effect=denied)  # type: ignore[method-assign]

    with pytest.raises(ClientError):
        await asyncio.to_thread(partial(kick, deployment, "ada", connection_id=connection_id))

    row = await desk.row(connection_id)
    assert row
    assert "endedBy" not in row


async def test_connection_without_a_row_is_ended_and_gets_none(desk: Desk) -> None:
    peer, connection_id = await desk.gateway.connected()

    counts = await asyncio.to_thread(partial(kick, desk.deployment(), "ada", connection_id=connection_id))

    assert counts.outcomes == {"kicked": 1}
    assert await closed(peer) == (1000, "Connection Closed Normally")
    assert await desk.row(connection_id) is None


@pytest.mark.parametrize(("age", "outcome"), [(60, "gone"), (0, "failed")], ids=["old", "may still be opening"])
async def test_row_of_a_connection_that_has_gone_is_deleted_once_it_is_old(desk: Desk, age: int, outcome: str) -> None:
    await desk.put(GONE, age=age)

    counts = await kick_user(desk)

    assert counts.outcomes == {outcome: 1}
    assert (await desk.row(GONE) is None) is (outcome == "gone")


async def test_dry_run_counts_and_changes_nothing(desk: Desk) -> None:
    peer, connection_id = await desk.connect()

    counts = await kick_user(desk, dry_run=True)
    row = await desk.row(connection_id)

    assert counts.outcomes == {"kicked": 1}
    assert row is not None
    assert "endedBy" not in row
    await peer.ping()


@pytest.mark.parametrize("options", [{}, {"user_id": "ada", "connection_id": GONE}], ids=["neither", "both"])
async def test_user_or_connection_must_be_given(desk: Desk, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="either a user_id or a connection_id"):
        kick(desk.deployment(), "ada", **options)
