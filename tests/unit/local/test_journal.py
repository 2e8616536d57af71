"""The journal: which entries it keeps, how it joins and masks them, and what the gateway records in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
from botocore.exceptions import ClientError
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from local import journal as journal_module
from local.apigateway.api import Throttle
from local.apigateway.limits import Limits
from local.journal import MAX_FACT_CHARACTERS, ConnectionRecord, Entry, Journal
from local.lambda_.invocation import InvocationResult
from local.masking import Mask
from tests.fixtures.apis import OUR_ROUTES, allow, api
from tests.fixtures.gateway import (
    HANDSHAKE,
    PATIENCE_SECONDS,
    Dial,
    Gateway,
    Serve,
    get_refusal_status,
    receive,
    wait_until_closed,
)

ID_TOKEN = "route.request.querystring.idToken"
ADA, BOB, EVE = "AAAAAAAAAAAAAAA=", "BBBBBBBBBBBBBBA=", "EEEEEEEEEEEEEEE="
JWS = f"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.{'s' * 86}"
OPAQUE = "0123456789-opaque+secret/0123456789"


@pytest.fixture
def journal() -> Journal:
    return Journal()


def open_connection(journal: Journal, connection_id: str, **facts: Any) -> None:
    """Record a handshake that succeeds."""
    request_id = f"request-{connection_id}"
    handshake = {"method": "GET", "path": "/prod", "headers": (), "sourceIp": "127.0.0.1", **facts}
    journal.record("handshake", connection_id, request_id, **handshake)
    journal.record("decision", connection_id, request_id, f"user-{connection_id}", status=101, reason=None)


def list_kinds(journal: Journal, connection_id: str) -> list[str]:
    return [entry["kind"] for entry in journal.get_timeline(connection_id)]


def find(journal: Journal, connection_id: str, kind: str) -> list[dict[str, Any]]:
    """Return the facts of the entries of one kind."""
    return [entry["facts"] for entry in journal.get_timeline(connection_id) if entry["kind"] == kind]


# What it keeps


def test_oldest_entries_go_first(journal: Journal) -> None:
    journal = Journal(max_entries=4)
    open_connection(journal, ADA)
    journal.record("end", ADA, code=1000, reason="", cause="client")
    open_connection(journal, BOB)

    assert list_kinds(journal, ADA) == ["decision", "end"]
    assert list_kinds(journal, BOB) == ["handshake", "decision"]

    for number in range(2):
        journal.record("message", BOB, f"m{number}", routeKey="$default", body="")

    assert [each["id"] for each in journal.find()[0]] == [BOB]
    assert journal.get_timeline(ADA) == []
    assert journal.find(f"request-{ADA}")[0] == []


def test_handshake_is_evicted_only_after_the_connection_has_ended() -> None:
    journal = Journal(max_entries=4)
    open_connection(journal, ADA)
    open_connection(journal, BOB)

    for number in range(10):
        journal.record("message", BOB, f"m{number}", routeKey="$default", body="")

    assert list_kinds(journal, ADA) == ["handshake", "decision"]
    assert list_kinds(journal, BOB) == ["handshake", "decision", *["message"] * 4]
    journal.record("end", ADA, code=1000, reason="", cause="client")
    assert list_kinds(journal, ADA) == ["handshake", "decision", "end"]
    for number in range(4):
        journal.record("message", BOB, f"n{number}", routeKey="$default", body="")
    assert journal.get_timeline(ADA) == []


def test_size_of_all_entries_is_limited() -> None:
    journal = Journal(max_characters=1000)
    open_connection(journal, ADA)

    for number in range(20):
        journal.record("message", ADA, f"m{number}", routeKey="$default", body=f"{number:0300}")

    assert [int(facts["body"]) for facts in find(journal, ADA, "message")] == [17, 18, 19]


@pytest.mark.parametrize("document", [False, True], ids=["text", "JSON"])
def test_long_fact_is_cut_with_a_note_and_without_a_part_of_a_credential(journal: Journal, document: bool) -> None:
    secret = "s3cr3t" * 6
    open_connection(journal, ADA, path=f"/prod?idToken={secret}", identitySources=(ID_TOKEN,))
    cut_at = MAX_FACT_CHARACTERS // 4 if document else MAX_FACT_CHARACTERS
    body = f"{'x' * (cut_at - 20)}{secret}{'y' * 100_000}"

    journal.record("message", ADA, "m", body=json.dumps({"body": body}).encode() if document else body)

    (fact,) = find(journal, ADA, "message")
    shown = fact["body"]["body"] if document else fact["body"]
    assert len(shown) < cut_at + 100
    assert "(cut, there are 1" in shown
    assert "s3cr3t" not in shown


def test_timeline_of_a_busy_connection_has_the_handshake_and_the_newest(journal: Journal) -> None:
    open_connection(journal, ADA)
    for number in range(30):
        journal.record("message", ADA, f"m{number}", body=str(number))

    shown = journal.get_timeline(ADA, limit=3)

    assert [entry["kind"] for entry in shown] == ["handshake", "decision", *["message"] * 3]
    assert shown[-1]["facts"]["body"] == "29"


@pytest.mark.parametrize(
    "document", [b"{", b"[" * 5000 + b"]" * 5000, b"\xff", b'{"a": NaN}'], ids=["cut", "deep", "not UTF-8", "NaN"]
)
def test_document_that_a_browser_could_not_read_does_not_hide_the_others(journal: Journal, document: bytes) -> None:
    open_connection(journal, ADA)

    journal.record("message", ADA, "m", event=document)

    json.dumps(journal.get_timeline(ADA), allow_nan=False)


# How entries are found


def test_entries_are_joined_by_the_ids_of_the_invocation(journal: Journal) -> None:
    open_connection(journal, ADA)
    open_connection(journal, BOB)
    journal.record("invocation", ADA, "request", "lambda", "1-trace", purpose="$default")

    journal.record("log", "lambda", function="websocket", record="hello")
    journal.record("call", "1-trace", service="dynamodb", effect="denied")
    journal.record("trace", "1-trace", document=b'{"id": "1"}')
    journal.record("log", "unknown", function="websocket", record="nobody's")

    assert list_kinds(journal, ADA)[2:] == ["invocation", "log", "call", "trace"]
    assert list_kinds(journal, BOB) == ["handshake", "decision"]
    assert journal.find_invocation("lambda") == (ADA, "$default")
    assert journal.find_traces("1-trace") == [{"id": "1"}]
    assert journal.find_traces("1-other") == []


@pytest.mark.parametrize(
    "search", [ADA, ADA[3:9], f"request-{ADA}", f"user-{ADA}", f"USER-{ADA}", "lambda", "1-trace", " message "]
)
def test_connection_is_found_by_every_id(journal: Journal, search: str) -> None:
    for connection_id in (ADA, BOB):
        open_connection(journal, connection_id)
    journal.record("message", ADA, "message", body="")
    journal.record("invocation", ADA, "message", "lambda", "1-trace", purpose="$default")

    assert [each["id"] for each in journal.find(search)[0]] == [ADA]


def test_newest_connection_comes_first_and_all_are_counted(journal: Journal) -> None:
    for connection_id in (ADA, BOB, EVE):
        open_connection(journal, connection_id)

    found, total = journal.find(limit=2)

    assert ([each["id"] for each in found], total) == ([EVE, BOB], 3)
    assert journal.find("nothing") == ([], 0)


async def test_followers_are_told_of_each_changed_connection_once_in_a_batch(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "BATCH", 2)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    open_connection(journal, ADA)
    async with aclosing(journal.follow()) as changes:
        first = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        for connection_id in (BOB, BOB, EVE, ADA):
            journal.record("message", connection_id, None, body="")
        open_connection(journal, BOB)
        open_connection(journal, EVE)

        monkeypatch.setattr(asyncio, "sleep", sleep)
        batches = [await first, await anext(changes)]

    assert [[each["id"] for each in batch] for batch in batches] == [[ADA, BOB], [EVE]]
    assert slept == [0.25]


# What it hides


@pytest.mark.parametrize("secret", [JWS, OPAQUE, "short"], ids=["JWS", "opaque", "short"])
@pytest.mark.parametrize(
    ("source", "handshake"),
    [
        (ID_TOKEN, {"path": "/prod?a=1&idToken={}"}),
        ("route.request.header.X-Key", {"headers": (("x-key", "{}"),)}),
        ("route.request.header.X-Key", {"headers": (("X-Key", "{}"), ("X-KEY", "{}"))}),
        ("context.stage", {"headers": (("authorization", "Bearer {}"),)}),
        ("context.stage", {"headers": (("Cookie", "a=b; session={}"),)}),
        ("context.stage", {"headers": (("Sec-WebSocket-Protocol", "echo.v1, idToken.{}"),)}),
    ],
    ids=["query string", "header", "repeated header", "Authorization", "Cookie", "subprotocol"],
)
def test_credential_is_hidden_where_it_is_sent(
    journal: Journal, source: str, handshake: dict[str, Any], secret: str
) -> None:
    def fill(value: Any) -> Any:
        return (
            value.format(secret)
            if isinstance(value, str)
            else tuple((name, text.format(secret)) for name, text in value)
        )

    open_connection(journal, ADA, identitySources=(source,), **{name: fill(each) for name, each in handshake.items()})

    (facts,) = find(journal, ADA, "handshake")
    assert secret not in json.dumps(facts)
    assert "characters)" in json.dumps(facts, ensure_ascii=False)


def test_long_credential_is_hidden_wherever_it_appears() -> None:
    mask = Mask([], f"/prod?idToken={OPAQUE}", [ID_TOKEN])
    text = f"got {OPAQUE}, as JSON {json.dumps(OPAQUE)}, in a URL ?t=0123456789-opaque%2Bsecret%2F0123456789"

    assert mask.hide_in({"a": [text]}) == {
        "a": [
            'got ••• (35 characters), as JSON "••• (35 characters)", in a URL ?t=••• (39 characters)',
        ]
    }


def test_other_values_than_credentials_are_shown() -> None:
    headers = [("Sec-WebSocket-Protocol", "chat.v2, a-subprotocol-of-the-api"), ("Origin", "http://localhost:3000")]
    mask = Mask(headers, "/prod?room=5", [ID_TOKEN], "a-subprotocol-of-the-api")

    assert mask.hide_in_headers(headers) == {
        "Sec-WebSocket-Protocol": "••• (7 characters), a-subprotocol-of-the-api",
        "Origin": "http://localhost:3000",
    }
    assert mask.hide_in_target("/prod?room=5&x=%20") == "/prod?room=5&x=%20"
    assert mask.hide_in({"idToken": "a word", "eyJ": "eyJust a word"}) == {"idToken": "a word", "eyJ": "eyJust a word"}


def test_maps_of_events_hide_identity_sources_and_no_other_names() -> None:
    mask = Mask([], "", [ID_TOKEN, "route.request.header.X-Key"])
    event = {
        "headers": {"x-key": "abc", "idToken": "shown"},
        "multiValueHeaders": {"X-KEY": ["abc", "d"]},
        "queryStringParameters": {"idToken": "abc", "X-Key": "shown"},
        "multiValueQueryStringParameters": {"idToken": ["abc"]},
    }

    assert mask.hide_in(event) == {
        "headers": {"x-key": "••• (3 characters)", "idToken": "shown"},
        "multiValueHeaders": {"X-KEY": ["••• (3 characters)", "••• (1 characters)"]},
        "queryStringParameters": {"idToken": "••• (3 characters)", "X-Key": "shown"},
        "multiValueQueryStringParameters": {"idToken": ["••• (3 characters)"]},
    }


# What the gateway records


async def wait_until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():
            await asyncio.sleep(0.01)


async def wait_for_connection(journal: Journal) -> dict[str, Any]:
    """Return the summary of the only connection, when it has ended."""
    await wait_until(lambda: journal.find()[0] and journal.find()[0][0]["endedAt"])
    (summary,) = journal.find()[0]
    return summary


async def test_handshake_and_messages_are_recorded_in_order(serve: Serve, journal: Journal) -> None:
    served = api(*OUR_ROUTES, identity_sources=(ID_TOKEN,), routes={"$default": {"two_way": True}})
    gateway = await serve(served, journal=journal)
    gateway.functions.behaviour["$default"] = InvocationResult({"statusCode": 200, "body": "back"})

    async with await gateway.connect("?idToken=abc") as peer:
        await peer.send("hello")
        await receive(peer)
    summary = await wait_for_connection(journal)

    assert list_kinds(journal, summary["id"]) == ["handshake", "decision", "message", "frame", "end"]
    handshake, decision, message, frame, end = (each["facts"] for each in journal.get_timeline(summary["id"]))
    assert (handshake["method"], handshake["path"]) == ("GET", "/prod?idToken=••• (3 characters)")
    assert (decision["status"], decision["allowed"], decision["effect"]) == (101, True, "Allow")
    assert message.items() >= {"routeKey": "$default", "body": "hello", "result": "ok"}.items()
    assert frame == {"body": "back", "from": "route"}
    assert end == {"code": 1000, "reason": "", "cause": "client"}
    context = (await gateway.functions.wait_for_event("$default"))["requestContext"]
    assert journal.get_timeline(summary["id"])[2]["keys"] == [summary["id"], context["requestId"]]
    counted = {name: summary[name] for name in ("userId", "status", "cause", "messages", "errors")}
    assert counted == {"userId": "ada", "status": 101, "cause": "client", "messages": 1, "errors": 0}
    assert summary["openedAt"] < summary["endedAt"] <= summary["lastAt"]


SILENT = allow() | {"policyDocument": {"Statement": []}}
DENY = {**allow(), "policyDocument": {"Statement": [{"Action": "*", "Effect": "Deny", "Resource": "*"}]}}


@pytest.mark.parametrize(
    ("query", "behaviour", "expected"),
    [
        ("", {}, (401, None, "no identity source, so the authorizer is not invoked")),
        ("?idToken=a", {"authorizer": InvocationResult(DENY)}, (403, "Deny", "the authorizer denied")),
        ("?idToken=a", {"authorizer": InvocationResult(SILENT)},
         (403, "implicit deny", "the authorizer's policy does not allow it")),
        ("?idToken=a", {"authorizer": InvocationResult(error="KeyError")}, (500, None, "the authorizer failed: KeyError")),
        ("?idToken=a", {"authorizer": InvocationResult({})}, (500, None, "the authorizer's answer is not valid")),
        ("?idToken=a", {"authorizer": InvocationResult(error="Exception", message="Unauthorized")},
         (401, None, "the authorizer raised Unauthorized")),
        ("?idToken=a", {"$connect": InvocationResult({"statusCode": 429})}, (429, None, "$connect answered 429")),
        ("?idToken=a", {"$connect": InvocationResult(error="KeyError")}, (502, None, "$connect failed: KeyError")),
        ("?idToken=a", {"$connect": InvocationResult("x")}, (502, None, "the answer of $connect is not valid")),
        ("?idToken=a", {"$connect": InvocationResult(error="Sandbox.Timedout")}, (504, None, "$connect timed out")),
    ],
)  # fmt: skip
async def test_refused_handshake_is_recorded_with_its_reason(
    serve: Serve,
    journal: Journal,
    query: str,
    behaviour: dict[str, InvocationResult],
    expected: tuple[int, str | None, str],
) -> None:
    gateway = await serve(api(*OUR_ROUTES, identity_sources=(ID_TOKEN,)), journal=journal)
    gateway.functions.behaviour |= behaviour

    status = await get_refusal_status(gateway, query)

    summary = await wait_for_connection(journal)
    (decision,) = find(journal, summary["id"], "decision")
    assert (status, decision["effect"], decision["reason"]) == expected
    assert (decision["status"], decision["allowed"], summary["status"]) == (status, False, status)


@pytest.mark.parametrize(
    ("behaviour", "routes", "expected"),
    [
        (InvocationResult(error="KeyError"), OUR_ROUTES, ("Internal server error", "the function failed: KeyError")),
        (
            InvocationResult(error="Sandbox.Timedout"),
            OUR_ROUTES,
            ("Endpoint request timed out", "the function timed out"),
        ),
        (InvocationResult([]), OUR_ROUTES, ("Internal server error", "the answer is not valid: it must be an object")),
        (None, ("$connect",), ("Forbidden", "no route")),
    ],
)
async def test_message_that_fails_is_recorded_with_its_frame_and_reason(
    serve: Serve,
    journal: Journal,
    behaviour: InvocationResult | None,
    routes: tuple[str, ...],
    expected: tuple[str, str],
) -> None:
    gateway = await serve(api(*routes), journal=journal)
    if behaviour:
        gateway.functions.behaviour["$default"] = behaviour

    async with await gateway.connect() as peer:
        await peer.send("hello")
        await receive(peer)
    summary = await wait_for_connection(journal)

    (message,), (frame,) = (find(journal, summary["id"], kind) for kind in ("message", "frame"))
    assert (message["result"], message["reason"]) == ("error", expected[1])
    assert (json.loads(frame["body"])["message"], frame["from"]) == (expected[0], "gateway")
    assert summary["errors"] == 1


async def test_invocation_without_a_permission_is_recorded(serve: Serve, journal: Journal) -> None:
    gateway = await serve(api(*OUR_ROUTES, permissions=frozenset()), journal=journal)

    assert await get_refusal_status(gateway) == 500

    (invocation,) = find(journal, (await wait_for_connection(journal))["id"], "invocation")
    assert (
        invocation.items() >= {"purpose": "$connect", "function": "websocket", "error": "Lambda.AccessDenied"}.items()
    )


async def test_text_that_is_not_a_connection_id_is_not_recorded_as_one(
    gateway_with_journal: Gateway, journal: Journal
) -> None:
    """A caller may have put a token in its place."""
    told: list[Entry] = []
    journal.listeners.append(lambda entry, _: told.append(entry))

    with pytest.raises(ClientError, match="Invalid connectionId"):
        await asyncio.to_thread(gateway_with_journal.management.get_connection, ConnectionId="a.secret.token")

    (call,) = [each for each in told if each.kind == "management"]
    assert (call.facts["status"], call.keys) == (400, ())


async def test_calls_of_connections_are_recorded_with_their_caller(
    gateway_with_journal: Gateway, journal: Journal
) -> None:
    gateway = gateway_with_journal
    peer, connection_id = await gateway.connect_with_id()

    await asyncio.to_thread(gateway.management.post_to_connection, ConnectionId=connection_id, Data=b"news")
    await asyncio.to_thread(gateway.management.get_connection, ConnectionId=connection_id)
    await asyncio.to_thread(gateway.management.delete_connection, ConnectionId=connection_id)
    await wait_until_closed(peer)
    await wait_for_connection(journal)

    calls = find(journal, connection_id, "management")
    assert [(call["method"], call["status"], call["body"]) for call in calls] == [
        ("POST", 200, "news"), ("GET", 200, ""), ("DELETE", 204, "")
    ]  # fmt: skip
    assert {call["caller"] for call in calls} == {"the administrator"}
    assert find(journal, connection_id, "frame") == [{"body": "news", "from": "@connections"}]


@pytest.fixture
async def gateway_with_journal(serve: Serve, journal: Journal) -> Gateway:
    return await serve(journal=journal)


async def close_from_client(_: Gateway, peer: ClientConnection, __: str) -> None:
    await peer.close(4000, "bye")


async def cut_connection(_: Gateway, peer: ClientConnection, __: str) -> None:
    peer.transport.abort()


async def send_binary(_: Gateway, peer: ClientConnection, __: str) -> None:
    await peer.send(b"binary")


async def send_reserved_opcode(_: Gateway, peer: ClientConnection, __: str) -> None:
    peer.transport.write(b"\x83\x80\0\0\0\0")


async def delete(gateway: Gateway, _: ClientConnection, connection_id: str) -> None:
    await asyncio.to_thread(gateway.management.delete_connection, ConnectionId=connection_id)


async def stop(gateway: Gateway, _: ClientConnection, __: str) -> None:
    await gateway.server.stop()


async def wait(*_: object) -> None:
    pass


@pytest.mark.parametrize(
    ("end", "limits", "expected"),
    [
        (close_from_client, Limits(), ("client", 4000)),
        (cut_connection, Limits(), ("connection lost", 1006)),
        (send_binary, Limits(), ("protocol error", 1003)),
        (send_reserved_opcode, Limits(), ("protocol error", 1002)),
        (delete, Limits(), ("@connections DELETE", 1000)),
        (stop, Limits(), ("local run ends", 1001)),
        (wait, Limits(idle_seconds=0.1), ("idle limit", 1001)),
        (wait, Limits(connection_seconds=0.1), ("connection limit", 1001)),
    ],
)
async def test_end_is_recorded_with_its_cause(
    serve: Serve,
    journal: Journal,
    end: Callable[[Gateway, ClientConnection, str], Awaitable[None]],
    limits: Limits,
    expected: tuple[str, int],
) -> None:
    gateway = await serve(limits=limits, journal=journal)
    peer, connection_id = await gateway.connect_with_id()

    await end(gateway, peer, connection_id)

    summary = await wait_for_connection(journal)
    (facts,) = find(journal, connection_id, "end")
    assert ((facts["cause"], facts["code"]), summary["cause"]) == (expected, expected[0])


async def test_client_that_leaves_during_the_handshake_is_lost(serve: Serve, journal: Journal, dial: Dial) -> None:
    gateway = await serve(journal=journal)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait_in_connect(_: object) -> InvocationResult:
        begun.set()
        await go_on.wait()
        return InvocationResult({"statusCode": 200})

    gateway.functions.behaviour["$connect"] = wait_in_connect
    client = await dial(gateway.port, HANDSHAKE)
    await begun.wait()
    client.writer.transport.abort()
    await asyncio.sleep(0)
    go_on.set()

    assert (await wait_for_connection(journal))["cause"] == "connection lost"


async def test_throttled_handshake_and_unknown_path_are_recorded_with_a_reason(serve: Serve, journal: Journal) -> None:
    heard: list[tuple[str | None, str]] = []

    def listen(entry: Entry, connection: ConnectionRecord | None) -> None:
        heard.append((entry.facts.get("reason"), connection.id if connection else ""))

    journal.listeners.append(listen)
    gateway = await serve(limits=Limits(new_connections=Throttle(rate=0.001, burst=0.5)), journal=journal)

    assert await get_refusal_status(gateway) == 429
    with pytest.raises(InvalidStatus):
        await gateway.connect("/other")

    assert ("throttled", journal.find()[0][0]["id"]) in heard
    assert ("its path is not /prod", "") in heard
    assert len(journal.find()[0]) == 1
