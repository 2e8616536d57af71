"""Throttles, and the limits of connections, with a clock that the tests set."""

from __future__ import annotations

from typing import Any

import pytest

from local.apigateway.api import Throttle
from local.apigateway.connections import Connections, Peer
from local.apigateway.events import Connection
from local.apigateway.limits import Limits, TokenBucket
from tests.fixtures.functions import Clock

UNUSED: Any = None  # for arguments that the registry does not use
ADA, BOB, EVE = (Peer(Connection("127.0.0.1", None, id=name), UNUSED, UNUSED) for name in ("ada", "bob", "eve"))


def take_all(bucket: TokenBucket, now: float) -> int:
    """Return how many requests are let through at this time."""
    count = 0
    while bucket.take(now):
        count += 1
    return count


# Throttles


def test_burst_is_let_through_at_once_but_not_more() -> None:
    bucket = TokenBucket(Throttle(rate=10, burst=3))

    assert [bucket.take(0.0) for _ in range(5)] == [True, True, True, False, False]


def test_throttle_refills_at_its_rate() -> None:
    bucket = TokenBucket(Throttle(rate=4, burst=8))
    take_all(bucket, 0.0)

    assert [take_all(bucket, now) for now in (0.0, 0.25, 1.0, 2.0)] == [0, 1, 3, 4]


def test_bucket_never_contains_more_than_the_burst() -> None:
    bucket = TokenBucket(Throttle(rate=100, burst=2))
    take_all(bucket, 0.0)

    assert take_all(bucket, 3600.0) == 2


def test_refused_request_takes_no_token() -> None:
    bucket = TokenBucket(Throttle(rate=1, burst=1))
    bucket.take(0.0)

    refused = [bucket.take(now) for now in (0.25, 0.5, 0.75)]

    assert (refused, bucket.take(1.0)) == ([False] * 3, True)


def test_rate_may_be_below_one_a_second() -> None:
    bucket = TokenBucket(Throttle(rate=0.5, burst=1))
    bucket.take(0.0)

    assert [bucket.take(now) for now in (1.0, 2.0, 3.0, 4.0)] == [False, True, False, True]


def test_clock_may_start_at_any_time() -> None:
    assert TokenBucket(Throttle(rate=1, burst=1)).take(-50.0)


@pytest.mark.parametrize("throttle", [Throttle(rate=0, burst=0), Throttle(rate=100, burst=0)])
def test_throttle_without_a_burst_refuses_everything(throttle: Throttle) -> None:
    bucket = TokenBucket(throttle)

    assert [take_all(bucket, now) for now in (0.0, 3600.0)] == [0, 0]


# Connections


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


IDLE, OVER = "idle limit", "connection limit"


@pytest.fixture
def connections(clock: Clock) -> Connections:
    """Idle after 10 s, over after 60 s."""
    return Connections(Limits(idle_seconds=10, connection_seconds=60), clock)


def test_connection_is_found_by_its_id_until_it_is_removed(connections: Connections) -> None:
    connections.add(ADA)

    found = [connections.get("ada"), connections.get("bob")]
    connections.remove("ada")

    assert found == [ADA, None]
    assert (connections.get("ada"), len(connections), connections.find_next_due()) == (None, 0, None)


def test_connection_is_due_once_at_its_idle_limit(connections: Connections, clock: Clock) -> None:
    connections.add(ADA)

    clock.now = 1009.9
    before = connections.remove_due()
    clock.now = 1010.0

    assert (before, connections.remove_due(), connections.remove_due()) == ([], [(ADA, IDLE)], [])
    assert (connections.get("ada"), len(connections)) == (None, 0)


def test_message_restarts_the_idle_timer(connections: Connections, clock: Clock) -> None:
    connections.add(ADA)
    connections.add(BOB)
    clock.now = 1009.0
    connections.touch("ada")

    due = []
    for clock.now in (1010.0, 1018.0, 1019.0):
        due.append(connections.remove_due())

    assert due == [[(BOB, IDLE)], [], [(ADA, IDLE)]]


def test_longest_idle_connection_is_due_first(connections: Connections, clock: Clock) -> None:
    for peer in (ADA, BOB, EVE):
        connections.add(peer)
    for clock.now, peer in ((1001.0, BOB), (1002.0, ADA), (1003.0, BOB)):
        connections.touch(peer.id)

    clock.now = 1100.0

    assert connections.remove_due() == [(EVE, OVER), (ADA, OVER), (BOB, OVER)]


def test_active_connection_is_due_at_the_connection_limit(connections: Connections, clock: Clock) -> None:
    """The quota of two hours applies to active connections, too."""
    connections.add(ADA)

    due = []
    for second in range(1, 61):
        clock.now = 1000.0 + second
        connections.touch("ada")
        due += connections.remove_due()

    assert (due, clock.now) == ([(ADA, OVER)], 1060.0)


def test_idle_and_active_connections_may_be_due_together(connections: Connections, clock: Clock) -> None:
    connections.add(ADA)
    clock.now = 1050.0
    connections.touch("ada")
    connections.add(BOB)

    clock.now = 1060.0

    assert sorted((peer.id, limit) for peer, limit in connections.remove_due()) == [("ada", OVER), ("bob", IDLE)]


def test_connection_over_both_limits_is_due_once(connections: Connections, clock: Clock) -> None:
    connections.add(ADA)

    clock.now = 1060.0

    assert connections.remove_due() == [(ADA, OVER)]


def test_next_due_is_the_sooner_of_both_limits(connections: Connections, clock: Clock) -> None:
    due = [connections.find_next_due()]
    connections.add(ADA)
    due.append(connections.find_next_due())
    for clock.now in (1005.0, 1055.0):
        connections.touch("ada")
        due.append(connections.find_next_due())

    assert due == [None, 1010.0, 1015.0, 1060.0]


def test_next_due_is_that_of_the_longest_idle_connection(connections: Connections, clock: Clock) -> None:
    connections.add(ADA)
    clock.now = 1003.0
    connections.add(BOB)
    clock.now = 1004.0
    connections.touch("ada")

    assert connections.find_next_due() == 1013.0


def test_removed_connection_is_never_due(connections: Connections, clock: Clock) -> None:
    connections.add(ADA)
    connections.add(BOB)
    connections.remove("ada")

    clock.now = 2000.0

    assert connections.remove_due() == [(BOB, OVER)]


def test_unknown_connection_may_be_touched_and_removed(connections: Connections) -> None:
    connections.touch("ada")
    connections.remove("ada")

    assert (len(connections), connections.find_next_due()) == (0, None)


# Faster clocks


def test_limits_are_those_of_aws_unless_told_otherwise() -> None:
    limits = Limits()

    assert (limits.idle_seconds, limits.connection_seconds, limits.integration_seconds) == (600, 7200, 29)
    assert limits.new_connections == Throttle(rate=500, burst=500)
    assert limits.requests == Throttle(rate=10_000, burst=5_000)


def test_clock_speed_shortens_only_the_limits_of_connections() -> None:
    limits = Limits(new_connections=Throttle(1, 2), requests=Throttle(3, 4))

    faster = limits.speed_up(3600)

    assert (faster.idle_seconds, faster.connection_seconds) == (1 / 6, 2)
    assert (faster.integration_seconds, faster.new_connections, faster.requests) == (
        limits.integration_seconds,
        limits.new_connections,
        limits.requests,
    )
    assert (limits.idle_seconds, limits.connection_seconds) == (600, 7200)
