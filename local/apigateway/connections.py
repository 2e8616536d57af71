"""The open connections of a stage, and when each reaches a limit."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from local.apigateway.events import Connection
from local.apigateway.limits import Limits
from local.apigateway.sockets import ClientSocket


@dataclass(eq=False)
class Peer:
    """An open connection with its socket.

    Attributes:
        last_active_at: Unix time of the last message in either direction.
    """

    connection: Connection
    socket: ClientSocket
    registry: Connections
    last_active_at: float = field(default_factory=time.time)

    @property
    def id(self) -> str:
        return self.connection.id

    def send(self, message: bytes) -> bool:
        """Send a message, which must be UTF-8; return False if the client has disconnected."""
        sent = self.socket.send(message)
        if sent:
            self.touch()
        return sent

    def touch(self) -> None:
        """Restart the idle timer, because a message was sent or received."""
        self.last_active_at = time.time()
        self.registry.touch(self.id)


class Connections:
    """The registry of open connections.

    The idle limit and the connection limit are the same for all connections. So the next connection to end is always the
    oldest one or the one that has been idle longest.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self.clock = clock
        self._opened: dict[str, tuple[float, Peer]] = {}  # the oldest first
        self._active: OrderedDict[str, float] = OrderedDict()  # the longest idle first

    def __len__(self) -> int:
        return len(self._opened)

    def add(self, peer: Peer) -> None:
        now = self.clock()
        self._opened[peer.id] = (now, peer)
        self._active[peer.id] = now

    def get(self, connection_id: str) -> Peer | None:
        _, peer = self._opened.get(connection_id, (0.0, None))
        return peer

    def touch(self, connection_id: str) -> None:
        """Restart the connection's idle timer."""
        if connection_id in self._active:
            self._active[connection_id] = self.clock()
            self._active.move_to_end(connection_id)

    def remove(self, connection_id: str) -> None:
        self._opened.pop(connection_id, None)
        self._active.pop(connection_id, None)

    def remove_due(self) -> list[tuple[Peer, str]]:
        """Remove the connections that have reached the idle or connection limit; return each with its limit's name."""
        due: dict[str, tuple[Peer, str]] = {}
        now = self.clock()
        for connection_id, active_at in self._active.items():
            if now < active_at + self.limits.idle_seconds:
                break
            due[connection_id] = self._opened[connection_id][1], "idle limit"
        for connection_id, (opened_at, peer) in self._opened.items():
            if now < opened_at + self.limits.connection_seconds:
                break
            due[connection_id] = peer, "connection limit"
        for connection_id in due:
            self.remove(connection_id)
        return list(due.values())

    def find_next_due(self) -> float | None:
        """Return the earliest time at which a connection may reach a limit; None without connections."""
        if not self._opened:
            return None
        idle_since = next(iter(self._active.values()))
        opened_at, _ = next(iter(self._opened.values()))
        return min(idle_since + self.limits.idle_seconds, opened_at + self.limits.connection_seconds)
