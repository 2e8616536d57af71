"""List connections, push messages to them, end them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Self

from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from ops.deployment import Deployment
from ops.errors import OpsError, call_with_retries, clean, explain, is_retryable, read_code, read_status

MAX_MESSAGE_BYTES = 128 * 1024  # limit of `@connections`
HANDSHAKE_SECONDS = 30  # API Gateway waits 29 s for `$connect`
REPORT_SECONDS = 0.2
# These concern one connection, so the others are still tried.
CONNECTION_ERRORS = {"BadRequestException", "PayloadTooLargeException"}


class Connection(NamedTuple):
    """A connection, as the connection table has it. Times are in Unix seconds; 0 is unknown.

    Attributes:
        removed_at: when the token expires or API Gateway closes the connection.
    """

    id: str
    user_id: str = ""
    connected_at: int = 0
    removed_at: int = 0

    @classmethod
    def parse(cls, row: dict[str, Any]) -> Self:
        """Read a row. A user or time that is missing or malformed is unknown.

        Raises:
            OpsError: the row has no connectionId, so the table is another one.
        """
        try:
            connection_id = row["connectionId"]["S"]
        except KeyError as error:
            raise OpsError(f"a row of the table has no {error}: is its name the output ConnectionTableName?") from error
        user_id = row.get("userId", {}).get("S", "")
        return cls(connection_id, user_id, parse_time(row, "connectedAt"), parse_time(row, "removedAt"))

    @property
    def has_expired(self) -> bool:
        return 0 < self.removed_at <= time.time()


def parse_time(row: dict[str, Any], name: str) -> int:
    """Return a time of a row in Unix seconds; 0 if it is missing or not a valid time."""
    text = row.get(name, {}).get("N", "0")
    return int(text) if text.isdecimal() and len(text) <= 11 else 0


@dataclass
class Counts:
    """How many connections had which outcome.

    Attributes:
        outcomes: number of connections by outcome: `delivered` or `kicked`, `gone`, `expired`, `failed`.
        reasons: number of failed connections by reason.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: str, reason: str) -> None:
        self.outcomes[outcome] += 1
        if reason:
            self.reasons[reason] += 1


Outcome = tuple[str, str]  # a connection's outcome, and the reason if it failed
Work = Callable[[Connection], Outcome]
Report = Callable[[Counts], None]


def connections_of(deployment: Deployment, user_id: str | None = None) -> Iterator[Connection]:
    """Yield the connections of a user, or of all users. A page of rows is read when it is needed.

    Expired connections are included, because DynamoDB may delete their rows days later.

    Raises:
        ClientError: AWS refused the call.
        BotoCoreError: there are no credentials, or the network failed.
    """
    parameters: dict[str, Any] = {"TableName": deployment.table_name}
    read: Callable[..., Any] = deployment.dynamodb.scan
    if user_id is not None:
        read = deployment.dynamodb.query
        parameters |= {
            "IndexName": "userIdIndex",
            "KeyConditionExpression": "userId = :user",
            "ExpressionAttributeValues": {":user": {"S": user_id}},
        }
    while True:
        page = call_with_retries(read, **parameters)
        yield from map(Connection.parse, page["Items"])
        if "LastEvaluatedKey" not in page:
            return
        parameters["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def push(
    deployment: Deployment,
    message: bytes,
    user_id: str | None = None,
    *,
    dry_run: bool = False,
    report: Report = lambda _: None,
) -> Counts:
    """Send a message at least once to all connections of a user, or of all users if `user_id` is None.

    An expired connection is closed instead. If a connection is gone, its row is deleted.

    Args:
        deployment: that has the connections.
        message: text in UTF-8, at most 128 KB.
        user_id: the `sub` of the user's tokens.
        dry_run: count the connections, and send nothing.
        report: called at the start, every 0.2 s and at the end, with the counts so far.

    Raises:
        OpsError: `@connections` would refuse the message.
        ClientError: AWS refused the call.
        BotoCoreError: there are no credentials, or the network failed.
    """
    check_message(message)
    management = deployment.management

    def work(connection: Connection) -> Outcome:
        outcome = "expired" if connection.has_expired else "delivered"
        if dry_run:
            return outcome, ""
        call = management.delete if connection.has_expired else partial(management.post, message=message)
        return call_connection(deployment, call, connection, outcome)

    return run(connections_of(deployment, user_id), work, deployment.threads, report)


def kick(
    deployment: Deployment,
    ended_by: str,
    *,
    user_id: str | None = None,
    connection_id: str | None = None,
    dry_run: bool = False,
    report: Report = lambda _: None,
) -> Counts:
    """Close one connection, or all connections of a user.

    `endedBy` is written to the row first, so that the log line of `$disconnect` has it.

    Args:
        deployment: that has the connections.
        ended_by: who closes them, for the log.
        user_id: the `sub` of the user's tokens.
        connection_id: the id of one connection.
        dry_run: count the connections, and close none.
        report: called at the start, every 0.2 s and at the end, with the counts so far.

    Raises:
        ValueError: both or none of user_id and connection_id are given.
        ClientError: AWS refused the call.
        BotoCoreError: there are no credentials, or the network failed.
    """
    if (user_id is None) == (connection_id is None):
        raise ValueError("kick needs either a user_id or a connection_id")
    connections = connections_of(deployment, user_id) if user_id is not None else [Connection(connection_id or "")]

    def work(connection: Connection) -> Outcome:
        if dry_run:
            return "kicked", ""
        write_ended_by(deployment, connection.id, ended_by)
        outcome = ("failed", "")
        try:
            outcome = call_connection(deployment, deployment.management.delete, connection, "kicked")
        finally:
            if outcome[0] == "failed":  # then the operator did not end it
                write_ended_by(deployment, connection.id, None)
        return outcome

    return run(connections, work, deployment.threads, report)


def check_message(message: bytes) -> None:
    """Raise OpsError for a message that `@connections` would refuse."""
    if not message:
        raise OpsError("the message is empty: pass a text, or put it on standard input")
    if len(message) > MAX_MESSAGE_BYTES:
        raise OpsError(
            f"the message has more than {MAX_MESSAGE_BYTES:,} bytes, which is the limit of @connections: shorten it"
        )
    try:
        message.decode()
    except UnicodeDecodeError as error:
        raise OpsError(f"the message is not UTF-8 (byte {error.start:,}): API Gateway sends text only") from error


def run(connections: Iterable[Connection], work: Work, threads: int, report: Report) -> Counts:
    """Do the work for each connection, in this number of threads; return the counts.

    A thread takes its next connection when it has finished the last one, so rows are read only as fast as they are used.
    """
    counts, lock, stopped = Counts(), threading.Lock(), threading.Event()
    remaining = iter(connections)

    def run_thread() -> None:
        while not stopped.is_set():
            with lock:
                connection = next(remaining, None)
            if connection is None:
                return
            outcome, reason = work(connection)
            with lock:
                counts.add(outcome, reason)

    report(counts)  # so that the caller has the counts even if an interrupt ends this
    with ThreadPoolExecutor(threads) as pool:
        running: list[Future[None]] = []
        try:
            running += [pool.submit(run_thread) for _ in range(threads)]
            while wait(running, REPORT_SECONDS, FIRST_EXCEPTION).not_done and not any(map(has_failed, running)):
                report(counts)
        finally:
            stopped.set()
    report(counts)
    for each in running:
        each.result()  # raises the error that ended the thread
    return counts


def has_failed(thread: Future[None]) -> bool:
    return thread.done() and thread.exception() is not None


def call_connection(
    deployment: Deployment, call: Callable[[str], None], connection: Connection, outcome: str
) -> Outcome:
    """Call `@connections`; return this outcome if the call succeeds, otherwise `gone` or `failed`.

    Raises:
        ClientError: AWS refused the call, and would refuse it for every connection.
        BotoCoreError: there are no credentials, or the network failed.
    """
    try:
        call_with_retries(call, connection.id)
    except ClientError as error:
        if read_status(error) == 410:
            return delete_gone(deployment, connection.id)
        if is_retryable(error) or read_code(error) in CONNECTION_ERRORS:
            return "failed", clean(f"{read_code(error)}: {error.response['Error']['Message']}")
        raise
    except (ConnectionClosedError, ReadTimeoutError) as error:  # `@connections` was reached, but did not answer
        return "failed", explain(error)
    return outcome, ""


def delete_gone(deployment: Deployment, connection_id: str) -> Outcome:
    """Delete the row of a connection that got 410, unless its handshake may still be running.

    `@connections` also answers 410 before a connection is established
    (https://repost.aws/knowledge-center/410-gone-api-gateway).
    """
    try:
        call_with_retries(
            deployment.dynamodb.delete_item,
            TableName=deployment.table_name,
            Key={"connectionId": {"S": connection_id}},
            ConditionExpression="attribute_not_exists(connectedAt) OR connectedAt < :latest",
            ExpressionAttributeValues={":latest": {"N": str(int(time.time()) - HANDSHAKE_SECONDS)}},
        )
    except deployment.dynamodb.exceptions.ConditionalCheckFailedException:
        return "failed", f"410, but younger than {HANDSHAKE_SECONDS} s: it may still be opening, so run this again"
    return "gone", ""


def write_ended_by(deployment: Deployment, connection_id: str, ended_by: str | None) -> None:
    """Write to the connection's row, if there is one, who ends the connection. None removes the name."""
    change: dict[str, Any] = {"UpdateExpression": "REMOVE endedBy"}
    if ended_by is not None:
        change = {"UpdateExpression": "SET endedBy = :by", "ExpressionAttributeValues": {":by": {"S": ended_by}}}
    try:
        call_with_retries(
            deployment.dynamodb.update_item,
            TableName=deployment.table_name,
            Key={"connectionId": {"S": connection_id}},
            ConditionExpression="attribute_exists(connectionId)",
            **change,
        )
    except deployment.dynamodb.exceptions.ConditionalCheckFailedException:
        return  # no row, but the connection may still be open
