"""Print the tables of docs/scale-and-cost.md, which say what a deployment costs: `python -m ops.cost`.

Prices are in US dollars for us-east-1, without free tiers, from AWS's price pages in 2025.
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
CONNECTS_A_MONTH = 30 * 24  # of a user who is always connected: an ID token is valid for an hour
KEEPALIVES_A_MONTH = MINUTES_A_MONTH / 8
GB = 1e9


class Use(NamedTuple):
    """An amount of something that has a price."""

    of: str
    amount: float

    @property
    def dollars(self) -> float:
        return self.amount * PRICES[self.of]


def list_connection_uses() -> list[Use]:
    """Return the uses of a connection, from its handshake to `$disconnect`.

    There are three invocations, and a row and its index entry are written and deleted.
    """
    seconds = AUTHORIZER_SECONDS + 2 * WEBSOCKET_SECONDS
    log_bytes = ACCEPTED_BYTES + CONNECTED_BYTES + DISCONNECTED_BYTES + 2 * ACCESS_LOG_BYTES
    return [
        Use("Lambda request", 3),
        Use("Lambda GB-s", seconds * MEMORY_GB),
        Use("DynamoDB write", 4),
        Use("CloudWatch Logs GB", log_bytes / GB),
        Use("X-Ray trace", 3 * SAMPLED),
    ]


def list_echo_uses() -> list[Use]:
    """Return the uses of a message of up to 32 KB and its echo, which is one invocation."""
    return [
        Use("API Gateway message", 2),
        Use("Lambda request", 1),
        Use("Lambda GB-s", WEBSOCKET_SECONDS * MEMORY_GB),
        Use("CloudWatch Logs GB", ACCESS_LOG_BYTES / GB),
        Use("X-Ray trace", SAMPLED),
    ]


def list_push_uses() -> list[Use]:
    return [Use("API Gateway message", 1)]


def sum_cost(uses: list[Use]) -> float:
    return sum(each.dollars for each in uses)


def write_tables() -> Iterator[str]:
    """Yield the lines of both tables."""
    columns = [name for name in PRICES if name != "API Gateway connection minute"]
    yield f"| A million | {' | '.join(columns)} | Sum |"
    yield "|---|" + "---|" * (len(columns) + 1)
    for name, uses in {
        "connections, opened and closed": list_connection_uses(),
        "messages with their echo": list_echo_uses(),
        "pushed messages": list_push_uses(),
    }.items():
        dollars = {each.of: each.dollars * 1e6 for each in uses}
        cells = (f"${dollars[of]:.2f}" if of in dollars else "" for of in columns)
        yield f"| {name} | {' | '.join(cells)} | **${sum_cost(uses) * 1e6:.2f}** |"
    yield ""
    yield "| Users connected all month | Connection minutes | Reconnects each hour | Keep-alive | Sum |"
    yield "|---|---|---|---|---|"
    for users in (1_000, 100_000, 10_000_000):
        minutes = users * sum_cost([Use("API Gateway connection minute", MINUTES_A_MONTH)])
        reconnects = users * CONNECTS_A_MONTH * sum_cost(list_connection_uses())
        keepalive = users * KEEPALIVES_A_MONTH * sum_cost(list_echo_uses())
        cells = (f"${each:,.0f}" for each in (minutes, reconnects, keepalive))
        yield f"| {users:,} | {' | '.join(cells)} | **${minutes + reconnects + keepalive:,.0f}** |"


if __name__ == "__main__":
    print("\n".join(write_tables()))
