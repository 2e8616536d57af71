"""What the tests of the local run share: APIs as a template could have them, and functions that run in this process."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from asyncio.subprocess import Process
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from local.apigateway.api import Api, Authorizer, Route
from local.apigateway.events import Connection, Event
from local.apigateway.server import GatewayServer, Invoke
from local.aws.clients import client
from local.aws.iam import ADMINISTRATOR, Role
from local.aws.ministack import LocalAws
from local.cloudformation.synthesis import synthesize
from local.cloudformation.template import Template
from local.lambda_.function import Function
from local.lambda_.invocation import Invocation
from local.lambda_.processes import Processes
from local.lambda_.runner import FunctionRunner
from local.lambda_.runtime_process import Launch, RuntimeProcess
from tests.conftest import ROOT
from tests.local.parts import Resource

PATIENCE_SECONDS = 15.0  # bounds a wait that ends at once where all is well
AUTHORIZER = "arn:aws:lambda:us-east-1:000000000000:function:authorizer"
WEBSOCKET = "arn:aws:lambda:us-east-1:000000000000:function:websocket"
METHOD_ARN = "arn:aws:execute-api:us-east-1:000000000000:localapi00/prod/$connect"
OUR_ROUTES = ("$connect", "$disconnect", "$default")
CONNECTION_ID = "L0SM9cOFvHcCIhw="
HANDSHAKE = (
    b"GET /prod HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)
DESK = Credentials(ADMINISTRATOR, ADMINISTRATOR)


def api(
    *route_keys: str,
    identity_sources: tuple[str, ...] | None = None,
    expression: str = "$request.body.action",
    routes: Mapping[str, Mapping[str, Any]] = {},
    **facts: Any,
) -> Api:
    """Return an API with these routes.

    Args:
        route_keys: of the routes.
        identity_sources: of the authorizer of `$connect`; None for no authorizer.
        expression: selects the route of a message.
        routes: attributes of some routes, e.g. `{"$default": {"two_way": True}}`.
        facts: other attributes of the API.
    """
    authorizer = None if identity_sources is None else Authorizer(AUTHORIZER, identity_sources)
    built = {
        key: Route(key, WEBSOCKET, **{"authorizer": authorizer if key == "$connect" else None, **routes.get(key, {})})
        for key in route_keys
    }
    return Api(id="localapi00", stage="prod", route_selection_expression=expression, routes=built, **facts)


def connection() -> Connection:
    return Connection(source_ip="127.0.0.1", user_agent=None, id=CONNECTION_ID)


def allow(context: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return an authorizer's answer that allows the connection."""
    statement = {"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": METHOD_ARN}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    return {"principalId": "ada", "policyDocument": document, "context": context or {}}


Read = Callable[..., Template]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def aws(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalAws]:
    """A local AWS of the test module's own, with nothing in it."""
    running = LocalAws(log=tmp_path_factory.mktemp("aws") / "log")
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a template file `Chat` with these resources."""

    def written(**resources: Resource) -> Template:
        path = tmp_path / "Chat.template.json"
        path.write_text(json.dumps({"Resources": resources}))
        return Template.read(path)

    return written


# Gateways, and functions in this process


Behaviour = Invocation | Callable[[Event], Awaitable[Invocation]]


class Functions:
    """Functions in this process: a test sets how each route and the authorizer behave, and reads their events."""

    def __init__(self) -> None:
        self.invoked: list[str] = []
        self.behaviour: dict[str, Behaviour] = {"authorizer": Invocation(allow())}
        self._events: defaultdict[str, asyncio.Queue[Event]] = defaultdict(asyncio.Queue)

    async def invoke(self, function_arn: str, event: Event) -> Invocation:
        name = "authorizer" if function_arn == AUTHORIZER else event["requestContext"]["routeKey"]
        self.invoked.append(name)
        self._events[name].put_nowait(event)
        behaviour = self.behaviour.get(name, Invocation({"statusCode": 200}))
        return behaviour if isinstance(behaviour, Invocation) else await behaviour(event)

    async def event(self, name: str) -> Event:
        """Return the next event of a route, or of the authorizer."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._events[name].get()


@dataclass(frozen=True)
class Gateway:
    """A gateway that listens, with its functions."""

    server: GatewayServer
    functions: Functions
    port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/prod"

    @property
    def management(self) -> Any:
        return client("apigatewaymanagementapi", f"http://127.0.0.1:{self.port}/prod")

    async def connect(self, query: str = "", **options: Any) -> ClientConnection:
        return await connect(f"{self.url}{query}", **options)

    async def connected(self, **options: Any) -> tuple[ClientConnection, str]:
        """Return a client, and its connection's id."""
        peer = await self.connect(**options)
        event = await self.functions.event("$connect")
        return peer, event["requestContext"]["connectionId"]

    async def disconnect_event(self) -> tuple[int, str]:
        """Return code and reason of the next `$disconnect` event."""
        context = (await self.functions.event("$disconnect"))["requestContext"]
        return context["disconnectStatusCode"], context["disconnectReason"]


Listen = Callable[..., Awaitable[tuple[GatewayServer, int]]]
Serve = Callable[..., Awaitable[Gateway]]


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """Starts gateway servers, and stops them after the test."""
    started: list[GatewayServer] = []
    unseen = unseen_failures()

    async def listening(served: Api, invoke: Invoke, **options: Any) -> tuple[GatewayServer, int]:
        server = GatewayServer(served, invoke, **options)
        port = await server.start()
        started.append(server)
        return server, port

    yield listening
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(*(server.stop() for server in started))
    assert unseen == []


@pytest.fixture
def serve(listen: Listen) -> Serve:
    """Starts gateways with this API, or one like ours without an authorizer, and stops them after the test."""

    async def serving(served: Api | None = None, **options: Any) -> Gateway:
        functions = Functions()
        server, port = await listen(served or api(*OUR_ROUTES), functions.invoke, **options)
        return Gateway(server, functions, port)

    return serving


@pytest.fixture
async def gateway(serve: Serve) -> Gateway:
    """A gateway with our three routes and no authorizer."""
    return await serve()


# Clients


async def received(peer: ClientConnection) -> str:
    async with asyncio.timeout(PATIENCE_SECONDS):
        message = await peer.recv()
    assert isinstance(message, str), "API Gateway sends text frames only"
    return message


async def closed(peer: ClientConnection) -> tuple[int | None, str | None]:
    """Return code and reason of the gateway's close frame."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await peer.wait_closed()
    return peer.close_code, peer.close_reason


async def refused(gateway: Gateway, query: str = "") -> int:
    """Return the status of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as error:
        await gateway.connect(query)
    return error.value.response.status_code


@dataclass(frozen=True)
class RawClient:
    """A TCP connection, for input that a proper client does not send."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read_head(self) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def read_all(self) -> bytes:
        """Read to the end of the connection, then close it too."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            read = await self.reader.read()
        self.writer.close()
        return read


Dial = Callable[..., Awaitable[RawClient]]


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    """Open TCP connections to a port, and send these bytes. They are closed after the test."""
    clients: list[RawClient] = []

    async def dialled(port: int, sent: bytes = b"") -> RawClient:
        clients.append(RawClient(*await asyncio.open_connection("127.0.0.1", port)))
        clients[-1].writer.write(sent)
        return clients[-1]

    yield dialled
    for each in clients:
        each.writer.close()


Answer = tuple[int, dict[str, str], bytes]  # status, headers and body


async def request(
    dial: Dial, gateway: Gateway, line: str, *headers: str, body: bytes = b"", caller: Credentials | None = None
) -> Answer:
    """What comes back on a request, signed if there is a caller; its headers by their names in lower case."""
    length = [f"Content-Length: {len(body)}"] if body else []
    signed = sign(line, body, caller) if caller else []
    head = "\r\n".join([f"{line} HTTP/1.1", "Host: localhost", "Connection: close", *length, *headers, *signed])
    answer = await (await dial(gateway.port, f"{head}\r\n\r\n".encode() + body)).read_all()
    start, _, rest = answer.partition(b"\r\n\r\n")
    status, *fields = start.decode().split("\r\n")
    names_and_values = (field.partition(": ") for field in fields)
    return int(status.split()[1]), {name.lower(): value for name, _, value in names_and_values}, rest


def sign(
    line: str, body: bytes = b"", caller: Credentials = DESK, *, service: str = "execute-api", region: str = "us-east-1"
) -> list[str]:
    """The headers that sign a request to `localhost`, by botocore."""
    method, target = line.split()
    call = AWSRequest(method, f"http://localhost{target}", {"Host": "localhost"}, body)
    SigV4Auth(caller, service, region).add_auth(call)
    return [f"{name}: {value}" for name, value in call.headers.items() if name != "Host"]


# Functions in the real awslambdaric


@dataclass
class Runtime:
    """A function runner, the folder of its source, and every process that it has launched."""

    source: Path
    launcher: Processes
    runner: FunctionRunner = field(init=False)
    launched: list[RuntimeProcess] = field(default_factory=list)

    def write(self, source: str) -> None:
        (self.source / "websocket.py").write_text(source)

    async def launch(self, function: Function, variables: dict[str, str]) -> RuntimeProcess:
        """Launch from a snapshot of the source as it is at the first launch."""
        self.runner.launch = await self.prepare()
        return await self.runner.launch(function, variables)

    async def prepare(self) -> Launch:
        launch = (await self.launcher.prepare({"websocket"}))["websocket"]

        async def recorded(function: Function, variables: dict[str, str]) -> RuntimeProcess:
            launched = await launch(function, variables)
            self.launched.append(launched)
            return launched

        return recorded

    async def start(self) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.runner.start()

    async def replace(self, source: str, function: Function | None = None) -> None:
        self.write(source)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.runner.replace(await self.prepare(), function)

    async def invoke(self, event: Any) -> Invocation:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.runner.invoke(event)

    async def stop(self) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.runner.stop()

    @property
    def processes(self) -> list[Process]:
        return [each.process for each in self.launched]

    @property
    def alive(self) -> list[int]:
        """The ids of the processes that still exist."""
        return alive(process.pid for process in self.processes)


Run = Callable[..., Runtime]


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Run]:
    """Makes runners whose handler module has this source; launched as our own, with the websocket image's packages."""
    unseen = unseen_failures()
    started: list[Runtime] = []

    def prepared(
        source: str, *, concurrency: int = 2, environment: dict[str, str] | None = None, **facts: Any
    ) -> Runtime:
        folder = tmp_path / "images" / "websocket"
        folder.mkdir(parents=True)
        runtime = Runtime(folder, Processes(folder.parent, tmp_path / "snapshots"))
        runtime.write(source)
        runtime.runner = FunctionRunner(function(**facts), runtime.launch, environment or {}, concurrency=concurrency)
        started.append(runtime)
        return runtime

    yield prepared
    for runtime in started:
        for process in runtime.processes:  # whatever a failed test has left
            if process.returncode is None:
                process.kill()
        await runtime.stop()
        await runtime.launcher.stop()
    assert unseen == []


# Tells the test its process id and waits until it is let go on.
PATIENT = """
import os, socket

def handler(port, context):
    with socket.create_connection(("127.0.0.1", port)) as test:
        test.sendall(b"%d\\n" % os.getpid())
        test.recv(1)
    return os.getpid()
"""


@dataclass
class Gate:
    """Where the patient handlers wait; closing what a handler came by lets it go on."""

    port: int
    arrived: asyncio.Queue[tuple[int, asyncio.StreamWriter]]

    async def next(self) -> tuple[int, asyncio.StreamWriter]:
        """The process id of the next handler that waits, and what it came by."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.arrived.get()


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    arrived: asyncio.Queue[tuple[int, asyncio.StreamWriter]] = asyncio.Queue()
    writers = []

    async def arrive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        arrived.put_nowait((int(await reader.readline()), writer))

    server = await asyncio.start_server(arrive, "127.0.0.1", 0)
    yield Gate(server.sockets[0].getsockname()[1], arrived)
    server.close()
    for writer in writers:
        writer.close()


def function(**facts: Any) -> Function:
    settings = {"environment": {}, "timeout_seconds": 10, "memory_mb": 256, "logging": {}, "role": Role("Role", ())}
    return Function(**{"name": "Chat-Rooms", "arn": WEBSOCKET, "target": "websocket", **settings, **facts})


# The whole system


@pytest.fixture(scope="session")
def own_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our own stack's template."""
    return synthesize(ROOT, tmp_path_factory.mktemp("cdk.out"))


# What is left behind


def unseen_failures() -> list[Any]:
    """What goes wrong in the event loop from now on without anybody to raise it to."""
    failures: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    return failures


def descendants(pid: int) -> dict[int, str]:
    """The command line of every process below this one, by `ps`, which is on every desk."""
    with subprocess.Popen(["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], stdout=subprocess.PIPE, text=True) as ps:
        assert ps.stdout is not None
        rows = [line.split(maxsplit=2) for line in ps.stdout]
    processes = [(int(row[0]), int(row[1]), row[2]) for row in rows if len(row) == 3 and int(row[0]) != ps.pid]
    found: dict[int, str] = {}
    level = {pid}
    while level:
        below = {child: arguments for child, parent, arguments in processes if parent in level}
        found |= below
        level = below.keys() - {pid}
    return found


def alive(pids: Iterable[int]) -> list[int]:
    """Those of these processes that still exist."""
    found = []
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, 0)
            found.append(pid)
    return found
