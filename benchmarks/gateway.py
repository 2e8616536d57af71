"""`make bench-gateway`: compare the local gateway with a bare echo server of the same WebSocket library.

Each server is a process of its own. The same clients send the same messages to one server after the other.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from local.apigateway.api import Api, Authorizer, Route, Throttle
from local.apigateway.limits import Limits
from local.apigateway.server import GatewayServer
from local.aws.iam import Iam, Role, Statement
from local.lambda_.function import Function
from local.lambda_.invocation import InvocationResult
from local.lambda_.runner import FunctionRunner
from local.lambda_.runtime_process import Output, RuntimeProcess
from local.paths import ROOT, VENVS

HERE = Path(__file__).resolve().parent
AUTHORIZER = "arn:aws:lambda:us-east-1:000000000000:function:authorizer"
CONNECT = "arn:aws:lambda:us-east-1:000000000000:function:connect"
ECHO = "arn:aws:lambda:us-east-1:000000000000:function:echo"
AT_ONCE = 50  # simultaneous handshakes, and clients that send messages
UNLIMITED = Throttle(rate=1e9, burst=1e9)
CONNECTIONS = 2_000
MESSAGES = 10_000
IDLE = 5_000
ROUNDS = 3
TICKS = os.sysconf("SC_CLK_TCK")


# The two servers


async def serve_bare() -> None:
    """Serve an echo over WebSocket; print the port."""

    async def echo(socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    async with serve(echo, "127.0.0.1", 0, ping_interval=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.Event().wait()


async def serve_gateway(environments: int) -> None:
    """Serve an echo by the local gateway; print the port.

    Functions in this process decide handshakes. A message goes through awslambdaric and `@connections`.
    """
    guard = Authorizer(AUTHORIZER, ("route.request.querystring.idToken",))
    routes = [Route("$connect", CONNECT, guard, throttle=UNLIMITED), Route("$default", ECHO, throttle=UNLIMITED)]
    api = Api("localapi00", "prod", "$request.body.action", {route.key: route for route in routes})
    runners: list[FunctionRunner] = []

    async def invoke(function_arn: str, event: dict[str, Any]) -> InvocationResult:
        if function_arn == ECHO:
            return await runners[0].invoke(event)
        if function_arn == CONNECT:
            return InvocationResult({"statusCode": 200})
        statement = {"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": event["methodArn"]}
        return InvocationResult({"principalId": "bench", "policyDocument": {"Statement": [statement]}})

    iam = Iam()
    manage = Statement("Allow", ("execute-api:ManageConnections",), (f"{api.arn}/POST/@connections/*",))
    role = Role("echo", (manage,))
    limits = Limits(new_connections=UNLIMITED, requests=UNLIMITED)
    gateway = GatewayServer(api, invoke, limits=limits, iam=iam)
    port = await gateway.start()
    function = Function("echo", ECHO, "echo", {}, timeout_seconds=10, memory_mb=128, logging={}, role=role)
    environment = {"GATEWAY": f"127.0.0.1:{port}", **iam.open_session("echo", role, "echo").build_environment()}
    runners.append(FunctionRunner(function, launch_echo, environment, concurrency=environments))
    await runners[0].start()
    print(port, flush=True)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await gateway.stop()
    await runners[0].stop()


async def launch_echo(function: Function, environment: dict[str, str]) -> RuntimeProcess:
    """Start an execution environment with the handler of benchmarks/echo.py."""
    output = Output()
    python = VENVS / "websocket" / "bin" / "python"
    task_root = {"PATH": os.defpath, "LAMBDA_TASK_ROOT": str(HERE)}
    process = await output.start(
        python, "-m", "awslambdaric", "echo.handler", cwd=HERE, env={**environment, **task_root}
    )
    return RuntimeProcess(process, output)


# The clients


@dataclass
class Server:
    """A running server, and the URL for its clients."""

    process: Process
    url: str

    @property
    def memory_kb(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def cpu_seconds(self) -> tuple[float, float]:
        """Return the CPU time of the server, and that of its functions."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return read_cpu_seconds(pid), sum(read_cpu_seconds(int(child)) for child in children)


def read_cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


@asynccontextmanager
async def run_server(*arguments: str) -> AsyncIterator[Server]:
    """Run this module with these arguments as a server until the block ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.gateway", *arguments, cwd=ROOT, stdout=PIPE, stdin=DEVNULL
    )
    assert process.stdout
    try:
        port = int(await process.stdout.readline())
        yield Server(process, f"ws://127.0.0.1:{port}/prod?idToken=abc")
    finally:
        process.terminate()
        await process.wait()


async def run_together(work: Callable[[int], Awaitable[Any]], count: int) -> list[Any]:
    """Call `work` with each number below `count`, AT_ONCE at a time; return the results."""
    numbers = iter(range(count))
    results = []

    async def worker() -> None:
        for number in numbers:
            results.append(await work(number))  # noqa: PERF401 - shared by the workers

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return results


async def open_clients(server: Server, count: int) -> list[ClientConnection]:
    return await run_together(lambda _: connect(server.url, ping_interval=None, close_timeout=30), count)


async def close_clients(clients: list[ClientConnection]) -> None:
    await run_together(lambda number: clients[number].close(), len(clients))


async def measure_connection_rate(server: Server) -> float:
    """Return how many clients a second can connect and disconnect."""

    async def once(_: int) -> None:
        await (await connect(server.url, ping_interval=None)).close()

    await run_together(once, 200)
    started = time.perf_counter()
    await run_together(once, CONNECTIONS)
    return CONNECTIONS / (time.perf_counter() - started)


async def measure_message_rate(server: Server, at_once: int) -> float:
    """Return the messages a second of this many clients. Each sends its next message when it has the echo of the last one."""
    clients = await open_clients(server, at_once)

    async def converse(client: ClientConnection, messages: int) -> None:
        for number in range(messages):
            message = f'{{"action": "echo", "number": {number}}}'
            await client.send(message)
            if await client.recv() != message:
                raise AssertionError("the echo is not what was sent")

    async def all_converse(messages: int) -> None:
        await asyncio.gather(*(converse(client, messages // at_once) for client in clients))

    await all_converse(MESSAGES // 10)
    started = time.perf_counter()
    await all_converse(MESSAGES)
    rate = MESSAGES / (time.perf_counter() - started)
    await close_clients(clients)
    return rate


async def measure_idle(server: Server) -> tuple[float, int]:
    """Return the memory of an idle connection in KB, and how many of IDLE connections still echo a message afterwards."""
    before = server.memory_kb
    clients = await open_clients(server, IDLE)
    each = (server.memory_kb - before) / IDLE

    async def ask(number: int) -> bool:
        await clients[number].send(str(number))
        return bool(await clients[number].recv() == str(number))

    answered = sum(await run_together(ask, IDLE))
    await close_clients(clients)
    return each, answered


@dataclass
class Figures:
    """The figures of one server. Each rate is the median of all rounds."""

    connections: float = 0
    one_by_one: float = 0
    many: float = 0
    memory_kb: float = 0
    answered: int = 0
    server_microseconds: float = 0
    function_microseconds: float = 0


async def measure(kind: str, environments: int) -> Figures:
    """Run one kind of server, ROUNDS times for the rates and once for the memory; return its figures."""
    arguments = (kind,) if kind == "bare" else (kind, str(environments))
    figures = Figures()
    rates: list[tuple[float, float, float]] = []
    for _ in range(ROUNDS):
        async with run_server(*arguments) as server:
            connections, one_by_one = await measure_connection_rate(server), await measure_message_rate(server, 1)
            before = server.cpu_seconds()
            rates.append((connections, one_by_one, await measure_message_rate(server, AT_ONCE)))
            spent = [
                1e6 * (now - then) / (1.1 * MESSAGES) for then, now in zip(before, server.cpu_seconds(), strict=True)
            ]
            figures.server_microseconds, figures.function_microseconds = spent
            say(".")
    figures.connections, figures.one_by_one, figures.many = (median(each) for each in zip(*rates, strict=True))
    async with run_server(*arguments) as server:
        figures.memory_kb, figures.answered = await measure_idle(server)
        say(".")
    return figures


def say(text: str) -> None:
    print(text, end="", flush=True, file=sys.stderr)


def format_table(bare: Figures, gateway: Figures) -> str:
    def format_row(name: str, one: float, other: float, target: str = "") -> str:
        return f"{name:<40}{one:>9,.0f}{other:>10,.0f}{other / one:>8.2f}  {target}".rstrip()

    return "\n".join(
        (
            f"{'':<40}{'bare':>9}{'gateway':>10}{'ratio':>8}  target",
            format_row("connections a second", bare.connections, gateway.connections, ">= 0.30"),
            format_row("messages a second, one client", bare.one_by_one, gateway.one_by_one, ">= 0.25"),
            format_row(f"messages a second, {AT_ONCE} clients", bare.many, gateway.many),
            format_row("memory of an idle connection, KB", bare.memory_kb, gateway.memory_kb, "<= 1.50"),
            format_row(f"of {IDLE:,} idle connections, still answering", bare.answered, gateway.answered, "   1.00"),
        )
    )


async def main(environments: int) -> None:
    bare, gateway = await measure("bare", environments), await measure("gateway", environments)
    print(f"\n\n{format_table(bare, gateway)}\n")
    print(
        f"With {AT_ONCE} clients a message takes {gateway.server_microseconds:.0f} µs of CPU in the gateway's one thread\n"
        f"and {gateway.function_microseconds:.0f} µs in {environments} execution environments"
        f" ({bare.server_microseconds:.0f} µs in the bare server), on {os.cpu_count()} cores.\n"
        "The gateway's thread is the bottleneck: a message is a WebSocket frame in each direction and three HTTP requests\n"
        "(next, @connections, response), while the bare server answers all waiting messages at one wake-up."
    )


if __name__ == "__main__":
    if not Path("/proc/self/status").exists():
        sys.exit("memory and CPU of processes are read from /proc, so this runs on Linux only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    match sys.argv[1:]:
        case ["bare"]:
            asyncio.run(serve_bare())
        case ["gateway", number]:
            asyncio.run(serve_gateway(int(number)))
        case []:
            asyncio.run(main(environments=2))
        case _:
            sys.exit("usage: python -m benchmarks.gateway")
