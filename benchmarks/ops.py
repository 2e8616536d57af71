"""`make bench-ops`: compare a push to everybody and a kick by `ops` with boto3's calls in the same number of threads.

The gateway, the clients and each subject are processes of their own. The subjects do the same work in turn.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import boto3
from botocore.config import Config
from websockets.asyncio.client import ClientConnection, connect

from local.apigateway.api import Api, Route, Throttle
from local.apigateway.limits import Limits
from local.apigateway.server import GatewayServer
from local.aws.ministack import LocalAws
from local.lambda_.invocation import InvocationResult
from local.paths import ROOT
from ops import Deployment, kick, push
from ops.deployment import open_session

TABLE = "connections"
REGION = "us-east-1"
THREADS = 32
CONNECTIONS = 5_000
KICKED = 1_000
ROUNDS = 3
AT_ONCE = 50  # simultaneous handshakes
UNLIMITED = Throttle(rate=1e9, burst=1e9)
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:websocket"
MESSAGE = b'{"news": "maintenance at noon"}'


async def serve_gateway() -> None:
    """Serve a gateway; print its port, and then the id of each connection in a line."""

    async def invoke(_: str, event: dict[str, Any]) -> InvocationResult:
        if event["requestContext"]["routeKey"] == "$connect":
            print(event["requestContext"]["connectionId"], flush=True)
        return InvocationResult({"statusCode": 200})

    routes = [Route(key, FUNCTION, throttle=UNLIMITED) for key in ("$connect", "$disconnect")]
    api = Api("localapi00", "prod", "$request.body.action", {route.key: route for route in routes})
    gateway = GatewayServer(api, invoke, limits=Limits(new_connections=UNLIMITED, requests=UNLIMITED))
    print(await gateway.start(), flush=True)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await gateway.stop()


# The subjects


def push_with_ops(dynamodb_url: str, callback_url: str) -> Callable[[], int]:
    deployment = open_deployment(dynamodb_url, callback_url)
    return lambda: push(deployment, MESSAGE).outcomes["delivered"]


def kick_with_ops(dynamodb_url: str, callback_url: str) -> Callable[[], int]:
    deployment = open_deployment(dynamodb_url, callback_url)
    return lambda: kick(deployment, "benchmark", user_id="kicked").outcomes["kicked"]


def open_deployment(dynamodb_url: str, callback_url: str) -> Deployment:
    session = open_session()
    session.set_credentials("test", "test")
    endpoint_urls = {"dynamodb": dynamodb_url}
    return Deployment(region=REGION, table_name=TABLE, callback_url=callback_url, session=session,
                      endpoint_urls=endpoint_urls, threads=THREADS)  # fmt: skip


def push_with_boto3(dynamodb_url: str, callback_url: str) -> Callable[[], int]:
    dynamodb, management = open_clients(dynamodb_url, callback_url)

    def post(row: dict[str, Any]) -> None:
        management.post_to_connection(ConnectionId=row["connectionId"]["S"], Data=MESSAGE)

    def run() -> int:
        pages = dynamodb.get_paginator("scan").paginate(TableName=TABLE)
        with ThreadPoolExecutor(THREADS) as pool:
            return len([*pool.map(post, (row for page in pages for row in page["Items"]))])

    return run


def kick_with_boto3(dynamodb_url: str, callback_url: str) -> Callable[[], int]:
    dynamodb, management = open_clients(dynamodb_url, callback_url)

    def end(row: dict[str, Any]) -> None:
        dynamodb.update_item(
            TableName=TABLE,
            Key={"connectionId": row["connectionId"]},
            UpdateExpression="SET endedBy = :by",
            ConditionExpression="attribute_exists(connectionId)",
            ExpressionAttributeValues={":by": {"S": "benchmark"}},
        )
        management.delete_connection(ConnectionId=row["connectionId"]["S"])

    def run() -> int:
        pages = dynamodb.get_paginator("query").paginate(
            TableName=TABLE,
            IndexName="userIdIndex",
            KeyConditionExpression="userId = :user",
            ExpressionAttributeValues={":user": {"S": "kicked"}},
        )
        with ThreadPoolExecutor(THREADS) as pool:
            return len([*pool.map(end, (row for page in pages for row in page["Items"]))])

    return run


def open_clients(dynamodb_url: str, callback_url: str) -> tuple[Any, Any]:
    session = boto3.Session("test", "test", region_name=REGION)
    config = Config(max_pool_connections=THREADS, proxies={})
    return (
        session.client("dynamodb", endpoint_url=dynamodb_url, config=config),
        session.client("apigatewaymanagementapi", endpoint_url=callback_url, config=config),
    )


SUBJECTS = {
    "push": {"ops": push_with_ops, "boto3": push_with_boto3},
    "kick": {"ops": kick_with_ops, "boto3": kick_with_boto3},
}


def measure(work: str, subject: str, *urls: str) -> dict[str, float]:
    """Do the work in this process; return the time, CPU time and memory that it took."""
    run = SUBJECTS[work][subject](*urls)
    before, before_kb = resource.getrusage(resource.RUSAGE_SELF), read_peak_kb()
    started = time.perf_counter()
    done = run()
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"done": done, "seconds": seconds, "cpu": cpu, "before_kb": before_kb, "peak_kb": read_peak_kb()}


def read_peak_kb() -> int:
    """Return the peak memory of this process. getrusage would include the parent's."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


# The clients


class Gateway:
    """A running gateway, which prints the ids of its connections."""

    def __init__(self, process: Process, port: int) -> None:
        self._process = process
        self.port = port

    async def open(self, count: int) -> tuple[list[ClientConnection], list[str]]:
        """Open this number of clients; return them and the ids of their connections."""
        clients: list[ClientConnection] = []
        for numbers in split_into_batches(range(count), AT_ONCE):
            url = f"ws://127.0.0.1:{self.port}/prod"
            clients += await asyncio.gather(*(connect(url, ping_interval=None) for _ in numbers))
        assert self._process.stdout
        return clients, [(await self._process.stdout.readline()).decode().strip() for _ in clients]


@asynccontextmanager
async def run_gateway() -> AsyncIterator[Gateway]:
    """Run a gateway as a process until the block ends."""
    process = await start("gateway")
    assert process.stdout
    try:
        yield Gateway(process, int(await process.stdout.readline()))
    finally:
        process.terminate()
        await process.wait()


async def start(*arguments: str) -> Process:
    """Start this module with these arguments as a process."""
    command = [sys.executable, "-m", "benchmarks.ops", *arguments]
    return await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stdin=DEVNULL)


async def run_subject(work: str, subject: str, *urls: str) -> dict[str, float]:
    output, _ = await (await start(work, subject, *urls)).communicate()
    print(".", end="", flush=True, file=sys.stderr)
    return dict(json.loads(output))


def create_table(dynamodb: Any, name: str) -> None:
    """Create a table with the keys and the index of the stack's connection table."""
    names = ("connectionId", "userId")
    by_connection, by_user = ([{"AttributeName": each, "KeyType": "HASH"}] for each in names)
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=by_connection,
        AttributeDefinitions=[{"AttributeName": each, "AttributeType": "S"} for each in names],
        GlobalSecondaryIndexes=[
            {"IndexName": "userIdIndex", "KeySchema": by_user, "Projection": {"ProjectionType": "ALL"}}
        ],
    )


def split_into_batches(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield the values in lists of this size, the last one possibly shorter. itertools has this since Python 3.12."""
    remaining = iter(values)
    while batch := [*islice(remaining, size)]:
        yield batch


def put_rows(dynamodb: Any, connection_ids: Iterable[str], user_id: str) -> None:
    now = int(time.time())
    times = {"connectedAt": {"N": str(now)}, "removedAt": {"N": str(now + 3600)}}
    for some in split_into_batches(connection_ids, 25):
        rows = [{"connectionId": {"S": each}, "userId": {"S": user_id}, **times} for each in some]
        dynamodb.batch_write_item(RequestItems={TABLE: [{"PutRequest": {"Item": row}} for row in rows]})


def delete_rows(dynamodb: Any, connection_ids: Iterable[str]) -> None:
    for some in split_into_batches(connection_ids, 25):
        keys = [{"connectionId": {"S": each}} for each in some]
        dynamodb.batch_write_item(RequestItems={TABLE: [{"DeleteRequest": {"Key": key}} for key in keys]})


async def main() -> None:
    aws = LocalAws(log=Path(tempfile.mkdtemp(prefix="bench-ops-"), "aws.log"))
    await aws.start()
    try:
        async with run_gateway() as gateway:
            await compare(aws, gateway)
    finally:
        await aws.stop()


async def compare(aws: LocalAws, gateway: Gateway) -> None:
    dynamodb = aws.client("dynamodb")
    create_table(dynamodb, TABLE)
    urls = aws.url, f"http://127.0.0.1:{gateway.port}/prod"
    measured: dict[tuple[str, str], list[dict[str, float]]] = {}
    clients, connection_ids = await gateway.open(CONNECTIONS)
    await asyncio.to_thread(put_rows, dynamodb, connection_ids, "pushed")
    for subject in ("ops", "boto3") * ROUNDS:
        measured.setdefault(("push", subject), []).append(await run_subject("push", subject, *urls))
    for client in clients:
        for _ in range(2 * ROUNDS):
            assert await client.recv(decode=False) == MESSAGE
    for subject in ("ops", "boto3") * ROUNDS:
        _, connection_ids = await gateway.open(KICKED)
        await asyncio.to_thread(put_rows, dynamodb, connection_ids, "kicked")
        measured.setdefault(("kick", subject), []).append(await run_subject("kick", subject, *urls))
        await asyncio.to_thread(delete_rows, dynamodb, connection_ids)
    print(f"\n{'':<12}{'done':>7}{'seconds':>10}{'a second':>10}{'CPU ms each':>13}{'peak MB':>9}{'MB before':>14}")
    for (work, subject), rounds in measured.items():
        middle = {name: median(each[name] for each in rounds) for name in rounds[0]}
        print(
            f"{work} {subject:<7}{middle['done']:>7,.0f}{middle['seconds']:>10.1f}"
            f"{middle['done'] / middle['seconds']:>10,.0f}{1000 * middle['cpu'] / middle['done']:>13.2f}"
            f"{middle['peak_kb'] / 1024:>9.0f}{middle['before_kb'] / 1024:>14.0f}"
        )
    print(
        f"{THREADS} threads, median of {ROUNDS} rounds, {os.cpu_count()} cores shared with the gateway and its clients"
    )


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if not Path("/proc/self/status").exists():
        sys.exit("memory is read from /proc, so this runs on Linux only")
    match sys.argv[1:]:
        case ["gateway"]:
            asyncio.run(serve_gateway())
        case [work, subject, dynamodb_url, callback_url]:
            print(json.dumps(measure(work, subject, dynamodb_url, callback_url)))
        case []:
            asyncio.run(main())
        case _:
            sys.exit("usage: python -m benchmarks.ops")
