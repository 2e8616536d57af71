"""API Gateway's quotas.

https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from local.apigateway.api import ACCOUNT_THROTTLE, INTEGRATION_SECONDS, Throttle

MAX_URL_CHARACTERS = 4096
MAX_AUTHORIZER_RESULT_BYTES = 8 * 1024
MAX_MESSAGE_BYTES = 128 * 1024
MAX_FRAME_BYTES = 32 * 1024
NEW_CONNECTIONS = Throttle(rate=500, burst=500)


@dataclass(frozen=True)
class Limits:
    """The limits that a user can lower, to see sooner what happens when they are reached.

    Attributes:
        idle_seconds: how long a connection may have no message in either direction.
        connection_seconds: how long a connection may be open.
        integration_seconds: how long a function may take to answer; its own timeout may be shorter.
        new_connections: the account's throttle of handshakes.
        requests: the account's throttle of messages and calls of `@connections` together.
    """

    idle_seconds: float = 10 * 60.0
    connection_seconds: float = 2 * 60 * 60.0
    integration_seconds: float = INTEGRATION_SECONDS
    new_connections: Throttle = NEW_CONNECTIONS
    requests: Throttle = ACCOUNT_THROTTLE

    def speed_up(self, clock_speed: float) -> Limits:
        """Return the limits with the idle and connection limits divided by `clock_speed`; functions keep their time."""
        return dataclasses.replace(
            self,
            idle_seconds=self.idle_seconds / clock_speed,
            connection_seconds=self.connection_seconds / clock_speed,
        )


@dataclass
class TokenBucket:
    """The token bucket that applies a throttle. Times are seconds of any monotonic clock."""

    throttle: Throttle
    tokens: float = field(init=False)
    at: float | None = None

    def __post_init__(self) -> None:
        self.tokens = self.throttle.burst

    def take(self, now: float) -> bool:
        """Take a token; return whether there was one."""
        if self.at is not None:
            self.tokens = min(self.throttle.burst, self.tokens + (now - self.at) * self.throttle.rate)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True
