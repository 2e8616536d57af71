"""Print what a deployment costs, as the tables of docs/scale-and-cost.md: `python -m ops.cost`.

US dollars in us-east-1, without free tiers, as AWS's price pages said in 2025.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

PRICES = {
    "API Gateway message": 1.00 / 1e6,  # up to 32 KB, in either direction
    "API Gateway connection minute": 0.25 / 1e6,
    "Lambda request": 0.20 / 1e6,
    "Lambda GB-s": 0.0000166667,  # x86
    "DynamoDB write": 0.625 / 1e6,  # on demand, up to 1 KB
    "CloudWatch Logs GB": 0.50,
    "X-Ray trace": 5.00 / 1e6,
}
MEMORY_GB = 0.5
AUTHORIZER_SECONDS, WEBSOCKET_SECONDS = 0.005, 0.015
SAMPLED = 0.05  # share of invocations that X-Ray records
ACCESS_LOG_BYTES, ACCEPTED_BYTES, CONNECTED_BYTES, DISCONNECTED_BYTES = 750, 600, 650, 300
MINUTES_A_MONTH = 30 * 24 * 60
CONNECTS_A_MONTH = 30 * 24  # of a user who is connected all the time: an ID token is valid for an hour
KEEPALIVES_A_MONTH = MINUTES_A_MONTH / 8
GB = 1e9


class Use(NamedTuple):
    """What is used of something that has a price."""

    of: str
    amount: float

    @property
    def dollars(self) -> float:
        return self.amount * PRICES[self.of]


def connect() -> list[Use]:
    """A connection from its handshake to `$disconnect`: three invocations; a row and its index entry come and go."""
    seconds = AUTHORIZER_SECONDS + 2 * WEBSOCKET_SECONDS
    log_bytes = ACCEPTED_BYTES + CONNECTED_BYTES + DISCONNECTED_BYTES + 2 * ACCESS_LOG_BYTES
    return [
        Use("Lambda request", 3),
        Use("Lambda GB-s", seconds * MEMORY_GB),
        Use("DynamoDB write", 4),
        Use("CloudWatch Logs GB", log_bytes / GB),
        Use("X-Ray trace", 3 * SAMPLED),
    ]


def echo() -> list[Use]:
    """A message of up to 32 KB and its echo: one invocation."""
    return [
        Use("API Gateway message", 2),
        Use("Lambda request", 1),
        Use("Lambda GB-s", WEBSOCKET_SECONDS * MEMORY_GB),
        Use("CloudWatch Logs GB", ACCESS_LOG_BYTES / GB),
        Use("X-Ray trace", SAMPLED),
    ]


def push() -> list[Use]:
    return [Use("API Gateway message", 1)]


def cost(uses: list[Use]) -> float:
    return sum(each.dollars for each in uses)


def write_tables() -> Iterator[str]:
    """Yield the lines of both tables."""
    columns = [name for name in PRICES if name != "API Gateway connection minute"]
    yield f"| A million | {' | '.join(columns)} | Sum |"
    yield "|---|" + "---|" * (len(columns) + 1)
    for name, uses in {
        "connections, opened and closed": connect(),
        "messages with their echo": echo(),
        "pushed messages": push(),
    }.items():
        dollars = {each.of: each.dollars * 1e6 for each in uses}
        cells = (f"${dollars[of]:.2f}" if of in dollars else "" for of in columns)
        yield f"| {name} | {' | '.join(cells)} | **${cost(uses) * 1e6:.2f}** |"
    yield ""
    yield "| Users connected all month | Connection minutes | Reconnects each hour | Keep-alive | Sum |"
    yield "|---|---|---|---|---|"
    for users in (1_000, 100_000, 10_000_000):
        minutes = users * cost([Use("API Gateway connection minute", MINUTES_A_MONTH)])
        reconnects, keepalive = users * CONNECTS_A_MONTH * cost(connect()), users * KEEPALIVES_A_MONTH * cost(echo())
        cells = (f"${each:,.0f}" for each in (minutes, reconnects, keepalive))
        yield f"| {users:,} | {' | '.join(cells)} | **${minutes + reconnects + keepalive:,.0f}** |"


if __name__ == "__main__":
    print("\n".join(write_tables()))
