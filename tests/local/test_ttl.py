"""Time to live: expired items are deleted from a real table."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from local.aws.ministack import LocalAws
from local.aws.resources import CreatedResources, create_resources
from local.aws.ttl import Expiry, Item, delete_expired, sweep
from local.cloudformation.template import Template
from tests.fixtures.gateway import PATIENCE_SECONDS

FAST = 1000.0  # as fast as a sweep can follow
TEMPLATE = Path(__file__).parent / "templates" / "tables.template.json"


@pytest.fixture(scope="module")
def created(aws: LocalAws) -> CreatedResources:
    """Tables `Seats`, whose items have a time to live, and `Rooms` and `Archive`, whose items have none."""
    return create_resources(Template.read(TEMPLATE), aws)


@pytest.fixture
async def swept(aws: LocalAws, created: CreatedResources) -> AsyncIterator[None]:
    """Sweep every table with a time to live by a fast clock, as a running system does."""
    sweeps = [
        asyncio.create_task(sweep(aws.client("dynamodb"), table, attribute, FAST))
        for table, attribute in created.expiring.items()
    ]
    yield
    assert [each for each in sweeps if each.done()] == []
    for each in sweeps:
        each.cancel()
    await asyncio.wait(sweeps)


def build_seat(number: int, seconds: float, **more: Any) -> Item:
    """Return a seat in the room `a` that expires in so many seconds."""
    return {"room": {"S": "a"}, "seat": {"N": str(number)}, "until": {"N": str(int(time.time() + seconds))}, **more}


def put(aws: LocalAws, table: str, *items: Item) -> None:
    dynamodb = aws.client("dynamodb")
    for each in items:
        dynamodb.put_item(TableName=table, Item=each)


def find_seats(aws: LocalAws) -> set[str]:
    found = aws.client("dynamodb").scan(TableName="Seats", ConsistentRead=True)["Items"]
    return {each["seat"]["N"] for each in found}


async def wait_until_gone(aws: LocalAws, number: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while str(number) in await asyncio.to_thread(find_seats, aws):
            await asyncio.sleep(0.02)


async def test_expired_item_is_deleted_and_renewed_item_stays(aws: LocalAws, swept: None) -> None:
    put(aws, "Seats", build_seat(1, 2000), build_seat(2, 2000), build_seat(3, 0))
    await wait_until_gone(aws, 3)  # by then the others have been seen too

    put(aws, "Seats", build_seat(2, 1_000_000))
    await wait_until_gone(aws, 1)
    put(aws, "Seats", build_seat(3, 0))
    await wait_until_gone(aws, 3)

    assert await asyncio.to_thread(find_seats, aws) & {"1", "2", "3"} == {"2"}


@pytest.mark.parametrize("table", ["Rooms", "Archive"])
async def test_items_of_a_table_without_time_to_live_stay(aws: LocalAws, swept: None, table: str) -> None:
    past: Item = {"room": {"S": "a"}, "until": {"N": "1000000000"}}
    put(aws, table, past)

    put(aws, "Seats", build_seat(4, 0))
    await wait_until_gone(aws, 4)

    assert aws.client("dynamodb").scan(TableName=table)["Items"] == [past]


def test_item_that_is_renewed_while_it_is_being_deleted_stays(aws: LocalAws) -> None:
    put(aws, "Seats", build_seat(5, 0))
    dynamodb = aws.client("dynamodb")
    dynamodb.meta.events.register_first(
        "before-call.dynamodb.DeleteItem", lambda **_: put(aws, "Seats", build_seat(5, 1_000_000))
    )

    delete_expired(dynamodb, "Seats", Expiry(["room", "seat"], "until"))

    assert "5" in find_seats(aws)


def test_expired_items_are_found_on_every_page(aws: LocalAws) -> None:
    text = {"text": {"S": "x" * 390_000}}
    put(aws, "Seats", *(build_seat(number, 0, **text) for number in (7, 8, 9, 10)))
    dynamodb = aws.client("dynamodb")
    assert "LastEvaluatedKey" in dynamodb.scan(TableName="Seats")

    delete_expired(dynamodb, "Seats", Expiry(["room", "seat"], "until"))

    assert find_seats(aws) & {"7", "8", "9", "10"} == set()


async def test_sweeping_goes_on_after_a_failure(aws: LocalAws, swept: None, caplog: pytest.LogCaptureFixture) -> None:
    dynamodb = aws.client("dynamodb")
    definition = dynamodb.describe_table(TableName="Seats")["Table"]
    put(aws, "Seats", build_seat(11, 0))
    await wait_until_gone(aws, 11)  # the sweep has begun

    with caplog.at_level(logging.WARNING, "local.aws.ttl"):
        await asyncio.to_thread(dynamodb.delete_table, TableName="Seats")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not caplog.messages:
                await asyncio.sleep(0.02)
    keys = {name: definition[name] for name in ("KeySchema", "AttributeDefinitions")}
    await asyncio.to_thread(dynamodb.create_table, TableName="Seats", BillingMode="PAY_PER_REQUEST", **keys)
    put(aws, "Seats", build_seat(12, 0))
    await wait_until_gone(aws, 12)

    assert caplog.messages[0].startswith("expired items of Seats could not be deleted: ")
