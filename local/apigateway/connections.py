"""The open connections of a stage, and when each of them must end."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from websockets.exceptions import ConnectionClosed

from local.apigateway.events import Connection
from local.apigateway.limits import Limits
from local.apigateway.sockets import ClientSocket


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


@dataclass
class Peer:
    """An open connection and its socket."""

    connection: Connection
    socket: ClientSocket
    registry: Connections[Peer]
    in_flight: asyncio.Semaphore
    last_active_at: float = field(default_factory=time.time)

    @property
    def id(self) -> str:
        return self.connection.id

    async def send(self, message: str) -> bool:
        """Sends one text message; False if the peer has gone."""
        try:
            await self.socket.send(message)
        except ConnectionClosed:
            return False
        self.touch()
        return True

    def touch(self) -> None:
        """A message has gone one way or the other."""
        self.last_active_at = time.time()
        self.registry.touch(self.id)
