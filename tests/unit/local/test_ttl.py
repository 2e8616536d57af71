"""Time to live: which items are expired at which clock speed."""

from __future__ import annotations

from typing import Any

import pytest

from local.aws.ttl import Expiry, Item

FAST = 1000.0


def item(id_: str, removed_at: object = None) -> Item:
    stored: Item = {"id": {"S": id_}}
    return stored if removed_at is None else {**stored, "removedAt": {"N": str(removed_at)}}


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
