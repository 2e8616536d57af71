"""The inspector: what it serves, which requests it refuses, and that it shows no credentials."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from websockets.asyncio.client import connect

from local import inspector as inspector_module
from local import paths
from local.errors import LaunchError
from local.example import build_handshake
from local.inspector import Inspector
from local.journal import Journal
from local.progress import Progress
from local.system import Options, run_system
from local.traces import TraceListener
from tests.fixtures.apis import api
from tests.fixtures.gateway import PATIENCE_SECONDS, Listen, receive
from tests.fixtures.runtime import MakeRuntime

ADA, BOB = "AAAAAAAAAAAAAAA=", "BBBBBBBBBBBBBBA="
JWS = ".".join(("eyJ" + "aGVhZGVy" * 8, "eyJ" + "cGF5bG9hZHBheWxvYWQ" * 4, "c2lnbmF0dXJl" * 12))
OPAQUE = "opaque-0123456789-abcdefghijklmnopqrstuvwxyz-~!+'()*"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """An empty folder for the built page, with a secret beside it."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "dist").mkdir()
    return tmp_path / "dist"


@pytest.fixture
async def inspector(journal: Journal, built: Path) -> AsyncIterator[Inspector]:
    server = Inspector(journal, built, 0)
    await server.start()
    yield server
    await server.stop()


async def ask(inspector: Inspector, path: str, *, method: str = "GET", **headers: str) -> Answer:
    """Send exactly this path and these headers. `{port}` in a header is replaced by the inspector's port."""

    def answer() -> Answer:
        connection = HTTPConnection("127.0.0.1", inspector.port, timeout=PATIENCE_SECONDS)
        connection.putrequest(method, path, skip_host=True)
        for name, value in {"Host": "localhost:{port}", **headers}.items():
            connection.putheader(name, value.format(port=inspector.port))
        connection.endheaders()
        response = connection.getresponse()
        answer = Answer(response.status, dict(response.getheaders()), response.read().decode())
        connection.close()
        return answer

    return await asyncio.to_thread(answer)


async def get(inspector: Inspector, path: str) -> Any:
    answer = await ask(inspector, path)
    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
    assert answer.headers["Content-Type"].startswith("application/json")
    return json.loads(answer.body)


def open_connection(journal: Journal, connection_id: str) -> None:
    facts = {"method": "GET", "path": "/prod", "headers": (), "sourceIp": "127.0.0.1"}
    journal.record("handshake", connection_id, f"request-{connection_id}", **facts)
    journal.record("decision", connection_id, f"request-{connection_id}", "ada", status=101)


# The journal as JSON


async def test_connections_are_listed_and_found(inspector: Inspector, journal: Journal) -> None:
    for connection_id in (ADA, BOB):
        open_connection(journal, connection_id)

    everything = await get(inspector, "/api/connections")
    found = await get(inspector, f"/api/connections?search={quote(ADA)}")

    assert ([each["id"] for each in everything["connections"]], everything["total"]) == ([BOB, ADA], 2)
    assert (found["connections"], found["total"]) == (journal.find(ADA)[0], 1)
    assert found["connections"][0].keys() == {
        "id", "userId", "openedAt", "endedAt", "status", "cause", "messages", "errors", "lastAt"
    }  # fmt: skip


async def test_timeline_of_a_connection(inspector: Inspector, journal: Journal) -> None:
    open_connection(journal, ADA)

    answer = await get(inspector, f"/api/connections/{quote(ADA)}")

    assert answer == {"id": ADA, "entries": journal.get_timeline(ADA)}
    assert answer["entries"][0].keys() == {"at", "kind", "keys", "facts"}


async def test_unknown_connection_is_not_found(inspector: Inspector) -> None:
    assert (await ask(inspector, "/api/connections/unknown")).status == 404


async def test_documents_of_a_trace(inspector: Inspector, journal: Journal) -> None:
    open_connection(journal, ADA)
    journal.record("invocation", ADA, "request", "lambda", "1-trace", purpose="$default")
    journal.record("trace", "1-trace", document=b'{"id": "1"}')

    assert await get(inspector, "/api/traces/1-trace") == {"documents": [{"id": "1"}]}
    assert await get(inspector, "/api/traces/1-other") == {"documents": []}


# Server-sent events


class Stream:
    """A stream of server-sent events."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, inspector: Inspector) -> Stream:
        reader, writer = await asyncio.open_connection("127.0.0.1", inspector.port)
        writer.write(f"GET /api/events HTTP/1.1\r\nHost: localhost:{inspector.port}\r\n\r\n".encode())
        stream = cls(reader, writer)
        assert "200 OK\r\nContent-Type: text/event-stream\r\n" in await stream.read(": connected\n\n")
        return stream

    async def read(self, end: str) -> str:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return (await self.reader.readuntil(end.encode())).decode()


async def test_changed_connections_are_streamed(inspector: Inspector, journal: Journal) -> None:
    stream = await Stream.open(inspector)

    open_connection(journal, ADA)

    assert (await stream.read("data: ")).endswith("event: connections\ndata: ")
    assert json.loads(await stream.read("]}")) == {"connections": journal.find()[0]}
    stream.writer.close()


async def test_stream_without_changes_is_kept_alive(inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspector_module, "ALIVE_SECONDS", 0.05)

    stream = await Stream.open(inspector)

    await stream.read(": alive\n\n")
    await stream.read(": alive\n\n")
    stream.writer.close()


async def test_follower_ends_with_its_client(
    inspector: Inspector, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspector_module, "ALIVE_SECONDS", 0.02)
    stream = await Stream.open(inspector)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not journal._followers:
            await asyncio.sleep(0.01)
        stream.writer.close()
        while journal._followers:
            await asyncio.sleep(0.01)


async def test_streams_do_not_delay_the_stop(journal: Journal, built: Path) -> None:
    inspector = Inspector(journal, built, 0)
    await inspector.start()
    streams = [await Stream.open(inspector) for _ in range(20)]  # no client reads from them
    for number in range(200):
        open_connection(journal, f"{number:015}=")

    async with asyncio.timeout(PATIENCE_SECONDS):
        await inspector.stop()

    assert journal._followers == []
    for stream in streams:
        stream.writer.close()


async def test_client_that_does_not_read_costs_no_memory(inspector: Inspector, journal: Journal) -> None:
    stream = await Stream.open(inspector)
    stream.reader._transport.pause_reading()  # type: ignore[attr-defined]
    open_connection(journal, ADA)
    await asyncio.sleep(0)

    for _ in range(10_000):
        journal.record("message", ADA, body="x")

    assert sum(len(each._changed) for each in journal._followers) <= 1
    stream.writer.transport.abort()


# Refused requests


@pytest.mark.parametrize("path", ["/", "/api/connections", "/api/events", "/nothing"])
async def test_other_host_name_that_resolves_to_this_machine_is_refused(inspector: Inspector, path: str) -> None:
    """test_page.py has more host names, which the same code refuses."""
    answer = await ask(inspector, path, Host="example.com:{port}")

    assert (answer.status, answer.body) == (421, f"The inspector is at http://localhost:{inspector.port}.\n")


@pytest.mark.parametrize(
    ("path", "origin"),
    [
        ("/", "http://example.com"),
        ("/api/connections", "null"),
        ("/api/connections", "http://localhost:3000"),
        ("/api/events", "https://localhost:{port}"),
    ],
)
async def test_page_of_another_origin_is_refused(inspector: Inspector, path: str, origin: str) -> None:
    assert (await ask(inspector, path, Origin=origin)).status == 403


@pytest.mark.parametrize("host", ["localhost:{port}", "127.0.0.1:{port}", "[::1]:{port}"])
async def test_own_page_is_answered(inspector: Inspector, host: str) -> None:
    assert (await ask(inspector, "/api/connections", Host=host, Origin=f"http://{host}")).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_nothing_can_be_changed(inspector: Inspector, method: str) -> None:
    assert (await ask(inspector, "/api/connections", method=method)).status == 405


@pytest.mark.parametrize("path", ["/", "/api/connections", "/nothing"])
async def test_every_answer_has_the_security_headers(inspector: Inspector, path: str) -> None:
    assert (await ask(inspector, path)).headers.items() >= HEADERS.items()


async def test_taken_port_is_refused_with_the_flag(journal: Journal, built: Path) -> None:
    flag = "choose another with --inspector-port"
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(LaunchError, match=flag):
        Inspector(journal, built, server.getsockname()[1])


# The page


async def test_missing_page_says_what_to_do_and_may_be_built_later(inspector: Inspector, built: Path) -> None:
    missing = await ask(inspector, "/")
    (built / "inspector.html").write_text("<!doctype html>")

    assert (missing.status, missing.body) == (503, "the inspector's page is not built: run `make page`")
    assert (await ask(inspector, "/")).body == "<!doctype html>"


async def test_page_is_served_with_its_assets(inspector: Inspector, built: Path) -> None:
    (built / "assets").mkdir(parents=True)
    (built / "inspector.html").write_text("<!doctype html>")
    (built / "assets" / "main-a1b2.js").write_text("export {}")

    index, script = [await ask(inspector, path) for path in ("/", "/assets/main-a1b2.js")]

    assert (index.status, index.headers["Content-Type"], index.headers["Cache-Control"]) == (
        200,
        "text/html",
        "no-store",
    )
    assert (script.body, script.headers["Cache-Control"]) == ("export {}", "max-age=31536000, immutable")


@pytest.mark.parametrize("path", ["/../secret", "/%2e%2e/secret", "/..%2fsecret", "/config.json", "/%00", "/assets"])
async def test_nothing_else_is_served(inspector: Inspector, built: Path, path: str) -> None:
    (built / "inspector.html").touch()
    (built / "config.json").write_text("secret")

    answer = await ask(inspector, path)

    assert answer.status == 404
    assert "secret" not in answer.body


# Credentials


# Writes the credential to every place that a function can write to.
CARELESS = """
import json, logging, os

logger = logging.getLogger("careless")
TOKEN = ""

def find(event):
    query = event.get("queryStringParameters") or {}
    offer = event["headers"].get("Sec-WebSocket-Protocol", "")
    return query.get("idToken") or event["headers"].get("X-Key") or offer.rpartition("idToken.")[2]

def handler(event, context):
    global TOKEN
    from aws_xray_sdk.core import xray_recorder
    is_handshake = "headers" in event and event["requestContext"]["eventType"] == "CONNECT"
    token = TOKEN = find(event) if is_handshake else TOKEN
    print("printed", token, flush=True)
    logger.warning("logged %s", token, extra={"token": token, "more": {token: [token]}})
    with xray_recorder.in_subsegment("careless") as subsegment:
        subsegment.put_annotation("token", token)
        subsegment.put_metadata("event", event)
    if event.get("type") == "REQUEST":
        statement = {"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": event["methodArn"]}
        context = {"token": token}
        return {"principalId": token, "policyDocument": {"Statement": [statement]}, "context": context}
    if event.get("body") == "fail":
        raise KeyError(token)
    headers = {"Sec-WebSocket-Protocol": "echo.v1"} if "Sec-WebSocket-Protocol" in event.get("headers", {}) else {}
    return {"statusCode": 200, "body": json.dumps({"token": token}), "headers": headers}
"""


@pytest.mark.parametrize("token", [JWS, OPAQUE], ids=["JWS", "opaque"])
@pytest.mark.parametrize(
    "sent",
    [
        ("route.request.querystring.idToken", "?idToken=<token>", {}),
        ("route.request.header.X-Key", "", {"additional_headers": {"X-Key": "<token>"}}),
        ("route.request.header.Sec-WebSocket-Protocol", "", {"subprotocols": ["echo.v1", "idToken.<token>"]}),
        (
            "route.request.querystring.idToken",
            "?idToken=<token>",
            {"additional_headers": {"Authorization": "Bearer <token>", "Cookie": "session=<token>"}},
        ),
    ],
    ids=["query string", "header", "subprotocol", "everywhere"],
)
async def test_credential_is_in_no_answer_of_the_inspector(
    make_runtime: MakeRuntime, listen: Listen, inspector: Inspector, token: str, sent: tuple[str, str, dict[str, Any]]
) -> None:
    journal, (source, query, options) = inspector.journal, sent
    if "subprotocols" in options and token == OPAQUE:
        token = "opaque-0123456789-abcdefghijklmnopqrstuvwxyz"  # a subprotocol is a token of RFC 9110
    options = json.loads(json.dumps(options).replace("<token>", token))
    traces = TraceListener(journal)
    runtime = make_runtime(CARELESS, concurrency=1, environment={"AWS_XRAY_DAEMON_ADDRESS": await traces.start()},
                  logging={"LogFormat": "JSON"})  # fmt: skip
    runtime.runner.journal = journal
    routes = {"$default": {"two_way": True}}
    served = api("$connect", "$disconnect", "$default", identity_sources=(source,), routes=routes)
    server, port = await listen(served, lambda _, event: runtime.runner.invoke(event), journal=journal)
    stream = await Stream.open(inspector)

    uri = f"ws://127.0.0.1:{port}/prod{query.replace('<token>', quote(token, safe=''))}"
    async with connect(uri, proxy=None, **options) as peer:
        long = ("x" * 30_000, "x" * 2_700 + token + "y" * 20_000, "y" * 30_000)  # fragments: a frame has its limit
        for message in ("hello", "fail", token, json.dumps({"token": token}), long):
            await peer.send(message)
            await receive(peer)
        (summary,) = journal.find()[0]
        server.connections.get(summary["id"]).send(b"pushed")  # type: ignore[union-attr]
        await peer.close(4000, token[:100])
    await wait_until_disconnected(journal, summary["id"])

    timeline = (await get(inspector, f"/api/connections/{quote(summary['id'])}"))["entries"]
    assert {entry["kind"] for entry in timeline} == {
        "handshake", "invocation", "decision", "message", "frame", "log", "trace", "end"
    }  # fmt: skip
    trace_ids = {key for entry in timeline if entry["kind"] == "trace" for key in entry["keys"]}
    answers = [json.dumps(timeline, ensure_ascii=False)]
    for path in (
        "/api/connections",
        f"/api/connections?search={quote(token)}",
        *(f"/api/traces/{id_}" for id_ in trace_ids),
    ):
        answers.append(json.dumps(await get(inspector, path), ensure_ascii=False))  # noqa: PERF401
    answers.append(await stream.read("event: connections"))
    answers.append((await stream.reader.read(100_000)).decode())
    shown = "".join(answers)
    assert "••• (" in shown
    leaks = [token[start : start + 20] for start in range(len(token) - 19) if token[start : start + 20] in shown]
    assert leaks == []
    stream.writer.close()
    await traces.stop()


# The whole system


async def test_connection_of_our_own_stack_is_told_from_handshake_to_end(
    own_template: Path, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "STATE", tmp_path)
    monkeypatch.setattr(paths, "LOGS", tmp_path / "logs")
    options = Options(template=own_template, functions="process", inspector_port=0, inspector=tmp_path)
    async with run_system(options, Progress(io.StringIO()), journal) as system:
        password = "correct-Horse-battery-1"
        await asyncio.to_thread(system.users.add, "ada@example.com", password)
        token = await asyncio.to_thread(system.users.get_id_token, "ada@example.com", password)
        async with connect(**build_handshake(system, token)) as peer:
            await peer.send("hello")
            await receive(peer)
        (summary,) = journal.find()[0]
        await wait_until_disconnected(journal, summary["id"])
        url = f"{system.inspector_url}/api/connections/{quote(summary['id'])}"
        shown = await asyncio.to_thread(urlopen, url)
        timeline = json.load(shown)["entries"]

    facts = {kind: [each["facts"] for each in timeline if each["kind"] == kind] for kind in OF_ANY_CONNECTION}
    assert all(facts.values())
    calls = [(call["service"], call["operation"], call["effect"], call["status"]) for call in facts["call"]]
    assert calls == [("dynamodb", "PutItem", "allowed", 200), ("dynamodb", "DeleteItem", "allowed", 200)]
    assert [call["caller"].partition("/")[2] for call in facts["management"]] == ["websocket"]
    assert [each["purpose"] for each in facts["invocation"]] == ["authorizer", "$connect", "$default", "$disconnect"]
    subsegments = {each["document"]["name"] for each in facts["trace"] if each["document"].get("type") == "subsegment"}
    assert subsegments >= {"dynamodb", "execute-api"}
    assert token[:40] not in json.dumps(timeline)


OF_ANY_CONNECTION = [
    "handshake",
    "invocation",
    "decision",
    "message",
    "frame",
    "management",
    "call",
    "log",
    "trace",
    "end",
]


async def wait_until_disconnected(journal: Journal, connection_id: str) -> None:
    """Wait until the function's `$disconnect` has ended and its last log line has arrived."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not any(
            entry["facts"].get("purpose") == "$disconnect" and "endedAt" in entry["facts"]
            for entry in journal.get_timeline(connection_id)
        ):
            await asyncio.sleep(0.02)
