"""`make bench-gateway`: what the local gateway costs beside a bare echo server of the same WebSocket library.

Each server is a process of its own and is asked the same by the same clients, one server after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from local import launch
from local.gateway import Invocation
from local.lambda_runtime import FunctionRunner
from local.launch import Launched
from local.server import GatewayServer
from local.template import Api, Authorizer, Function, Route

HERE = Path(__file__).resolve().parent
AUTHORIZER = "arn:aws:lambda:us-east-1:000000000000:function:authorizer"
CONNECT = "arn:aws:lambda:us-east-1:000000000000:function:connect"
ECHO = "arn:aws:lambda:us-east-1:000000000000:function:echo"
AT_ONCE = int(os.environ.get("AT_ONCE", "50"))  # handshakes, and connections that send messages


# The two servers


async def serve_bare() -> None:
    async def echo(socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    async with serve(echo, "127.0.0.1", 0, ping_interval=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.Event().wait()


async def serve_gateway(environments: int) -> None:
    """Handshakes are decided by functions in this process; a message goes through awslambdaric and `@connections`."""
    guard = Authorizer(AUTHORIZER, ("route.request.querystring.idToken",))
    routes = [Route("$connect", CONNECT, guard), Route("$default", ECHO, None)]
    api = Api("localapi00", "prod", "$request.body.action", {route.key: route for route in routes})
    runners: list[FunctionRunner] = []

    async def invoke(function_arn: str, event: dict[str, Any]) -> Invocation:
        if function_arn == ECHO:
            return await runners[0].invoke(event)
        if function_arn == CONNECT:
            return Invocation({"statusCode": 200})
        statement = {"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": event["methodArn"]}
        return Invocation({"principalId": "bench", "policyDocument": {"Statement": [statement]}})

    gateway = GatewayServer(api, invoke)
    port = await gateway.start()
    function = Function("echo", ECHO, "echo", {}, timeout_seconds=10, memory_mb=128, logging={})
    runners.append(FunctionRunner(function, launched, {"GATEWAY": f"127.0.0.1:{port}"}, concurrency=environments))
    await runners[0].start()
    print(port, flush=True)
    await asyncio.Event().wait()


async def launched(function: Function, environment: dict[str, str]) -> Launched:
    process = await asyncio.create_subprocess_exec(
        launch.VENVS / "websocket" / "bin" / "python", "-m", "awslambdaric", "echo.handler",
        cwd=HERE, env={"PATH": os.defpath, "LAMBDA_TASK_ROOT": str(HERE), **environment}, stdout=PIPE,
    )  # fmt: skip
    return Launched(process)


# The clients


@dataclass
class Server:
    process: Process
    url: str

    @property
    def memory_kb(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Server]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.gateway", *arguments, cwd=launch.ROOT, stdout=PIPE, stdin=DEVNULL
    )
    assert process.stdout
    try:
        port = int(await process.stdout.readline())
        yield Server(process, f"ws://127.0.0.1:{port}/prod?idToken=abc")
    finally:
        process.terminate()
        await process.wait()


async def together(work: Callable[[int], Awaitable[Any]], count: int) -> list[Any]:
    """Calls `work` with each number, AT_ONCE at a time."""
    numbers = iter(range(count))
    results = []

    async def worker() -> None:
        for number in numbers:
            results.append(await work(number))

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return results


async def opened(server: Server, count: int) -> list[ClientConnection]:
    return await together(lambda _: connect(server.url, ping_interval=None, close_timeout=30), count)


async def closed(clients: list[ClientConnection]) -> None:
    await together(lambda number: clients[number].close(), len(clients))


async def connection_rate(server: Server, count: int) -> float:
    async def once(_: int) -> None:
        await (await connect(server.url, ping_interval=None)).close()

    await together(once, count // 10)
    started = time.perf_counter()
    await together(once, count)
    return count / (time.perf_counter() - started)


async def message_rate(server: Server, count: int) -> float:
    clients = await opened(server, AT_ONCE)

    async def converse(client: ClientConnection, messages: int) -> None:
        for number in range(messages):
            await client.send(f"message {number}")
            assert await client.recv() == f"message {number}"

    await asyncio.gather(*(converse(client, count // AT_ONCE // 10) for client in clients))
    started = time.perf_counter()
    await asyncio.gather(*(converse(client, count // AT_ONCE) for client in clients))
    rate = count / (time.perf_counter() - started)
    await closed(clients)
    return rate


async def idle(server: Server, count: int) -> tuple[float, int]:
    """Memory in KB for each of so many idle connections, and how many of them answer in the end."""
    before = server.memory_kb
    clients = await opened(server, count)
    await asyncio.sleep(1)
    each = (server.memory_kb - before) / count

    async def ask(number: int) -> bool:
        await clients[number].send(str(number))
        return bool(await clients[number].recv() == str(number))

    answered = sum(await together(ask, count))
    await closed(clients)
    return each, answered


async def measure(kind: str, environments: int) -> dict[str, float]:
    figures = {}
    async with running("bare") if kind == "bare" else running("gateway", str(environments)) as server:
        figures["connections"] = await connection_rate(server, 2000)
    async with running("bare") if kind == "bare" else running("gateway", str(environments)) as server:
        figures["messages"] = await message_rate(server, 10000)
    async with running("bare") if kind == "bare" else running("gateway", str(environments)) as server:
        figures["memory"], figures["answered"] = await idle(server, 5000)
    return figures


async def main() -> None:
    for kind in ("bare", "gateway"):
        print(kind, await measure(kind, 2))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    match sys.argv[1:]:
        case ["bare"]:
            asyncio.run(serve_bare())
        case ["gateway", environments]:
            asyncio.run(serve_gateway(int(environments)))
        case _:
            asyncio.run(main())
