"""API Gateway's quotas: how fast, how long, how large.

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
