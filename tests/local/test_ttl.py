"""Time to live: which items are expired at which clock speed, and their deletion from a real table."""

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


def item(id_: str, removed_at: object = None) -> Item:
    stored: Item = {"id": {"S": id_}}
    return stored if removed_at is None else {**stored, "removedAt": {"N": str(removed_at)}}


# Expired items


def expiry(clock_speed: float = 1.0) -> Expiry:
    return Expiry(["id"], "removedAt", clock_speed)


def test_item_expires_at_its_time() -> None:
    kept, over, past = item("a", 1001), item("b", 1000), item("c", 999)

    assert expiry().select_expired([kept, over, past], 1000.0) == [over, past]


def test_item_that_expired_over_five_years_ago_stays() -> None:
    """AWS does not delete an item that expired more than five years ago."""
    five_years = 5 * 365 * 24 * 60 * 60

    assert expiry().select_expired([item("young", 1000)], now=1000 + five_years - 1) == [item("young", 1000)]
    assert expiry().select_expired([item("old", 1000)], now=1000 + five_years) == []


def test_fast_clock_shortens_the_remaining_time_of_an_item() -> None:
    fast = expiry(3600)
    row = item("a", 1000 + 7200)

    over = [fast.select_expired([row], now) for now in (1000.0, 1001.9, 2000.0)]

    assert over == [[], [], [row]]


def test_slow_clock_lengthens_the_remaining_time_of_an_item() -> None:
    slow = expiry(0.5)
    row = item("a", 1010)

    assert [slow.select_expired([row], now) for now in (1000.0, 1019.0, 1020.0)] == [[], [], [row]]


def test_remaining_time_starts_when_each_item_is_first_seen() -> None:
    fast = expiry(10)
    first, later = item("a", 1100), item("b", 1100)

    over = [
        fast.select_expired(items, now)
        for items, now in (([first], 1000.0), ([first, later], 1010.0), ([later], 1019.0))
    ]

    assert over == [[], [first], [later]]


def test_renewed_item_stays() -> None:
    fast = expiry(10)
    fast.select_expired([item("a", 1100)], 1000.0)
    fast.select_expired([item("a", 1300)], 1009.0)  # 291 s more, from now on

    renewed = item("a", 1300)
    assert [fast.select_expired([renewed], now) for now in (1010.0, 1038.0, 1038.2)] == [[], [], [renewed]]


def test_deleted_item_that_is_stored_again_is_a_new_item() -> None:
    fast = expiry(10)
    row = item("a", 1100)
    for items in ([row], []):
        fast.select_expired(items, 1000.0)

    assert [fast.select_expired([row], now) for now in (1010.0, 1019.0)] == [[], [row]]


@pytest.mark.parametrize("value", [{}, {"removedAt": {"S": "1"}}, {"removedAt": {"NULL": True}}, {"other": {"N": "1"}}])
def test_item_without_a_number_never_expires(value: Any) -> None:
    """https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/time-to-live-ttl-before-you-start.html."""
    assert expiry(FAST).select_expired([{"id": {"S": "a"}, **value}], 10e9) == []


def test_items_are_distinguished_by_their_whole_key() -> None:
    fast = Expiry(["room", "user"], "removedAt", 10)
    rows: list[Item] = [
        {"room": {"S": room}, "user": {"N": user}, "removedAt": {"N": "1100"}}
        for room, user in (("a", "1"), ("a", "2"), ("b", "1"))
    ]
    for seen, now in ((1, 1000.0), (2, 1002.0), (3, 1004.0)):
        fast.select_expired(rows[:seen], now)

    assert [fast.select_expired(rows, now) for now in (1009.9, 1010.0, 1011.9)] == [[], rows[:1], rows[:2]]


def test_deleted_items_are_forgotten() -> None:
    fast = expiry(10)

    for number in range(1000):
        fast.select_expired([item("stays", 1100), item(f"new-{number}", 1100)], 1000.0)

    assert len(fast._ends) == 2


# Deletion from a real table


@pytest.fixture(scope="module")
def created(aws: LocalAws) -> CreatedResources:
    """Tables `Seats`, whose items have a time to live, and `Rooms` and `Archive`, whose have none."""
    return create_resources(Template.read(TEMPLATE), aws)


@pytest.fixture
async def swept(aws: LocalAws, created: CreatedResources) -> AsyncIterator[None]:
    """Every table with a time to live is swept, by a fast clock, as in a running system."""
    sweeps = [
        asyncio.create_task(sweep(aws.client("dynamodb"), table, attribute, FAST))
        for table, attribute in created.expiring.items()
    ]
    yield
    assert [each for each in sweeps if each.done()] == []
    for each in sweeps:
        each.cancel()
    await asyncio.wait(sweeps)


def seat(number: int, seconds: float, **more: Any) -> Item:
    """Return a seat in the room `a` that expires in so many seconds."""
    return {"room": {"S": "a"}, "seat": {"N": str(number)}, "until": {"N": str(int(time.time() + seconds))}, **more}


def put(aws: LocalAws, table: str, *items: Item) -> None:
    dynamodb = aws.client("dynamodb")
    for each in items:
        dynamodb.put_item(TableName=table, Item=each)


def seats(aws: LocalAws) -> set[str]:
    found = aws.client("dynamodb").scan(TableName="Seats", ConsistentRead=True)["Items"]
    return {each["seat"]["N"] for each in found}


async def until_gone(aws: LocalAws, number: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while str(number) in await asyncio.to_thread(seats, aws):
            await asyncio.sleep(0.02)


async def test_expired_item_is_deleted_and_renewed_item_stays(aws: LocalAws, swept: None) -> None:
    put(aws, "Seats", seat(1, 2000), seat(2, 2000), seat(3, 0))
    await until_gone(aws, 3)  # by then the others have been seen too

    put(aws, "Seats", seat(2, 1_000_000))
    await until_gone(aws, 1)
    put(aws, "Seats", seat(3, 0))
    await until_gone(aws, 3)

    assert await asyncio.to_thread(seats, aws) & {"1", "2", "3"} == {"2"}


@pytest.mark.parametrize("table", ["Rooms", "Archive"])
async def test_items_of_a_table_without_time_to_live_stay(aws: LocalAws, swept: None, table: str) -> None:
    past: Item = {"room": {"S": "a"}, "until": {"N": "1000000000"}}
    put(aws, table, past)

    put(aws, "Seats", seat(4, 0))
    await until_gone(aws, 4)

    assert aws.client("dynamodb").scan(TableName=table)["Items"] == [past]


def test_item_that_is_renewed_while_it_is_being_deleted_stays(aws: LocalAws) -> None:
    put(aws, "Seats", seat(5, 0))
    dynamodb = aws.client("dynamodb")
    dynamodb.meta.events.register_first(
        "before-call.dynamodb.DeleteItem", lambda **_: put(aws, "Seats", seat(5, 1_000_000))
    )

    delete_expired(dynamodb, "Seats", Expiry(["room", "seat"], "until"))

    assert "5" in seats(aws)


def test_expired_items_are_found_on_every_page(aws: LocalAws) -> None:
    text = {"text": {"S": "x" * 390_000}}
    put(aws, "Seats", *(seat(number, 0, **text) for number in (7, 8, 9, 10)))
    dynamodb = aws.client("dynamodb")
    assert "LastEvaluatedKey" in dynamodb.scan(TableName="Seats")

    delete_expired(dynamodb, "Seats", Expiry(["room", "seat"], "until"))

    assert seats(aws) & {"7", "8", "9", "10"} == set()


async def test_sweeping_goes_on_after_a_failure(aws: LocalAws, swept: None, caplog: pytest.LogCaptureFixture) -> None:
    dynamodb = aws.client("dynamodb")
    definition = dynamodb.describe_table(TableName="Seats")["Table"]
    put(aws, "Seats", seat(11, 0))
    await until_gone(aws, 11)  # the sweep has begun

    with caplog.at_level(logging.WARNING, "local.aws.ttl"):
        await asyncio.to_thread(dynamodb.delete_table, TableName="Seats")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not caplog.messages:
                await asyncio.sleep(0.02)
    keys = {name: definition[name] for name in ("KeySchema", "AttributeDefinitions")}
    await asyncio.to_thread(dynamodb.create_table, TableName="Seats", BillingMode="PAY_PER_REQUEST", **keys)
    put(aws, "Seats", seat(12, 0))
    await until_gone(aws, 12)

    assert caplog.messages[0].startswith("expired items of Seats could not be deleted: ")
