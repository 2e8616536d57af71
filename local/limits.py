"""API Gateway's quotas: how fast, how long, how large.

https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from local.resources import ACCOUNT_THROTTLE, INTEGRATION_SECONDS, Throttle

MAX_URL_CHARACTERS = 4096
MAX_AUTHORIZER_RESULT_BYTES = 8 * 1024
MAX_MESSAGE_BYTES = 128 * 1024
MAX_FRAME_BYTES = 32 * 1024
NEW_CONNECTIONS = Throttle(rate=500, burst=500)


@dataclass(frozen=True)
class Limits:
    """What a user can change to see it happen sooner.

    Attributes:
        idle_seconds: without a message in either direction.
        connection_seconds: whatever its traffic.
        integration_seconds: for a function to answer, besides its own timeout.
        new_connections: of the account.
        requests: of the account: messages and calls of `@connections` together.
    """

    idle_seconds: float = 10 * 60.0
    connection_seconds: float = 2 * 60 * 60.0
    integration_seconds: float = INTEGRATION_SECONDS
    new_connections: Throttle = NEW_CONNECTIONS
    requests: Throttle = ACCOUNT_THROTTLE

    def compressed(self, clock_speed: float) -> Limits:
        """With the lives of connections passing so many times faster; code runs no faster, so its limit stays."""
        return dataclasses.replace(
            self,
            idle_seconds=self.idle_seconds / clock_speed,
            connection_seconds=self.connection_seconds / clock_speed,
        )


@dataclass
class TokenBucket:
    """A throttle's state. Times are seconds of any clock that does not go back."""

    throttle: Throttle
    tokens: float = field(init=False)
    at: float | None = None

    def __post_init__(self) -> None:
        self.tokens = self.throttle.burst

    def take(self, now: float) -> bool:
        """Whether one more is within the limit."""
        if self.at is not None:
            self.tokens = min(self.throttle.burst, self.tokens + (now - self.at) * self.throttle.rate)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Identified(Protocol):
    """Has a connection's id."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Identified)


class Connections(Generic[T]):
    """Who is connected, and who has been for too long. As both limits are the same for all, order tells who is next."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self.clock = clock
        self._opened: dict[str, tuple[float, T]] = {}
        self._active: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._opened)

    def add(self, peer: T) -> None:
        now = self.clock()
        self._opened[peer.id] = (now, peer)
        self._active[peer.id] = now

    def get(self, connection_id: str) -> T | None:
        _, peer = self._opened.get(connection_id, (0.0, None))
        return peer

    def touch(self, connection_id: str) -> None:
        """A message has gone one way or the other; pings do not count."""
        if connection_id in self._active:
            self._active[connection_id] = self.clock()
            self._active.move_to_end(connection_id)

    def remove(self, connection_id: str) -> None:
        self._opened.pop(connection_id, None)
        self._active.pop(connection_id, None)

    def due(self) -> list[T]:
        """Removes and returns those whose time is over."""
        due: dict[str, T] = {}
        now = self.clock()
        for connection_id, active_at in self._active.items():
            if now < active_at + self.limits.idle_seconds:
                break
            due[connection_id] = self._opened[connection_id][1]
        for connection_id, (opened_at, peer) in self._opened.items():
            if now < opened_at + self.limits.connection_seconds:
                break
            due[connection_id] = peer
        for connection_id in due:
            self.remove(connection_id)
        return list(due.values())

    def next_due(self) -> float | None:
        """When the next one's time is over at the earliest; None without connections."""
        if not self._opened:
            return None
        idle = next(iter(self._active.values())) + self.limits.idle_seconds
        opened_at, _ = next(iter(self._opened.values()))
        return min(idle, opened_at + self.limits.connection_seconds)
