"""Traces and logs of invocations in the journal: the real awslambdaric, and what the real X-Ray SDK sends."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from local.apigateway.events import Event
from local.ids import make_id
from local.journal import Journal
from local.traces import TraceListener
from tests.fixtures.gateway import PATIENCE_SECONDS
from tests.fixtures.runtime import MakeRuntime, Runtime

CONNECTION = "AAAAAAAAAAAAAAA="
HEX = re.compile(r"[0-9a-f]{16}")
TRACE_ID = re.compile(r"1-[0-9a-f]{8}-[0-9a-f]{24}")
NAME = re.compile(r"[\w .:/%&#=+\\@-]{1,200}")  # letters, numbers, whitespace and these symbols, says the documentation

HANDLER = """
import json, logging, os, sys, time, urllib.request

logger = logging.getLogger("rooms")

def handler(event, context):
    from aws_xray_sdk.core import xray_recorder
    match event["body"]:
        case "subsegment":
            with xray_recorder.in_subsegment("lookup") as subsegment:
                subsegment.put_annotation("connection_id", event["requestContext"]["connectionId"])
        case "exception":
            with xray_recorder.in_subsegment("lookup"):
                raise KeyError("x")
        case "log":
            logger.warning("%s", "logged", extra={"connectionId": event["requestContext"]["connectionId"]})
            print("printed", flush=True)
        case "hang": time.sleep(600)
        case "exit": os._exit(3)
    return {"sampled": os.environ["_X_AMZN_TRACE_ID"][-1]}
"""


@pytest.fixture
def journal() -> Journal:
    journal = Journal()
    journal.record("handshake", CONNECTION, method="GET", path="/prod", headers=())
    return journal


@pytest.fixture
async def address(journal: Journal) -> AsyncIterator[str]:
    """The address to which the SDK sends its segments."""
    listener = TraceListener(journal)
    yield await listener.start()
    await listener.stop()


Prepare = Callable[..., Runtime]


@pytest.fixture
def prepare(make_runtime: MakeRuntime, journal: Journal, address: str) -> Prepare:
    """Start functions whose invocations are recorded in the journal."""

    def start(source: str = HANDLER, **facts: Any) -> Runtime:
        variables = {"AWS_XRAY_DAEMON_ADDRESS": address, "AWS_LAMBDA_FUNCTION_NAME": "x"}
        runtime = make_runtime(source, environment=variables, **facts)
        runtime.runner.journal = journal
        return runtime

    return start


def build_message(body: str) -> Event:
    return {
        "requestContext": {"connectionId": CONNECTION, "requestId": make_id(), "routeKey": "$default"},
        "body": body,
    }


def find(journal: Journal, kind: str) -> list[dict[str, Any]]:
    return [entry["facts"] for entry in journal.get_timeline(CONNECTION) if entry["kind"] == kind]


async def find_some(journal: Journal, kind: str, count: int) -> list[dict[str, Any]]:
    """Wait until there are `count` entries of a kind; return their facts."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(found := find(journal, kind)) < count:
            await asyncio.sleep(0.01)
    return found


async def wait_for_trace(journal: Journal, count: int) -> dict[str, dict[str, Any]]:
    """Wait until the only trace has `count` documents; check them, and return them by origin or name."""
    documents = [facts["document"] for facts in await find_some(journal, "trace", count)]
    assert journal.find_traces(documents[0]["trace_id"]) == documents
    for document in documents:
        check_document(document)
    return {document.get("origin", document["name"]): document for document in documents}


def check_document(document: dict[str, Any], parent: dict[str, Any] | None = None) -> None:
    """Check the required fields of https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html."""
    assert HEX.fullmatch(document["id"])
    assert NAME.fullmatch(document["name"])
    assert isinstance(document["start_time"], float)
    assert document.get("in_progress") is True or document["end_time"] >= document["start_time"]
    if parent is None:
        assert TRACE_ID.fullmatch(document["trace_id"])
    if document.get("type") == "subsegment":
        assert HEX.fullmatch(document["parent_id"])
    for key, value in document.get("annotations", {}).items():
        assert re.fullmatch(r"\w+", key, re.ASCII)
        assert isinstance(value, str | int | float | bool)
    for each in document.get("subsegments", ()):
        check_document(each, document)


# Traces


async def test_invocation_is_sampled_only_with_a_journal(prepare: Prepare) -> None:
    runtime = prepare()

    sampled = await runtime.invoke(build_message(""))
    runtime.runner.journal = None
    unsampled = await runtime.invoke(build_message(""))

    assert (sampled.answer, unsampled.answer) == ({"sampled": "1"}, {"sampled": "0"})


async def test_subsegment_of_the_sdk_belongs_to_the_segments_of_the_lambda_service(
    prepare: Prepare, journal: Journal
) -> None:
    await prepare().invoke(build_message("subsegment"))

    documents = await wait_for_trace(journal, 3)
    service, function, lookup = (documents[name] for name in ("AWS::Lambda", "AWS::Lambda::Function", "lookup"))
    assert (function["parent_id"], lookup["parent_id"]) == (service["id"], function["id"])
    assert {each["trace_id"] for each in documents.values()} == {service["trace_id"]}
    assert lookup["annotations"] == {"connection_id": CONNECTION}
    (invocation,) = [entry for entry in journal.get_timeline(CONNECTION) if entry["kind"] == "invocation"]
    assert service["trace_id"] in invocation["keys"]
    assert service["aws"]["request_id"] in invocation["keys"]


async def test_cold_start_that_an_invocation_waits_for_is_its_initialization(
    prepare: Prepare, journal: Journal
) -> None:
    runtime = prepare(concurrency=1)

    await asyncio.gather(*(runtime.invoke(build_message("")) for _ in range(2)))

    documents = [facts["document"] for facts in await find_some(journal, "trace", 4)]
    steps = [
        [(each["name"], each["start_time"], each["end_time"]) for each in document["subsegments"]]
        for document in documents
        if document["origin"] == "AWS::Lambda::Function"
    ]
    assert [[name for name, *_ in each] for each in steps] == [["Initialization", "Invocation"], ["Invocation"]]
    (_, begun, initialized), (_, invoked, _) = steps[0]
    assert begun < initialized <= invoked


async def test_environment_that_was_started_before_has_the_time_of_its_init_phase_as_a_note(
    prepare: Prepare, journal: Journal
) -> None:
    runtime = prepare()
    await runtime.start()

    await runtime.invoke(build_message(""))
    await runtime.invoke(build_message(""))

    documents = [facts["document"] for facts in await find_some(journal, "trace", 4)]
    functions = [each for each in documents if each["origin"] == "AWS::Lambda::Function"]
    assert [[each["name"] for each in function["subsegments"]] for function in functions] == [["Invocation"]] * 2
    assert functions[0]["annotations"]["init_milliseconds"] > 0
    assert "annotations" not in functions[1]


async def test_exception_is_a_fault_with_its_cause(prepare: Prepare, journal: Journal) -> None:
    await prepare().invoke(build_message("exception"))

    documents = await wait_for_trace(journal, 3)
    assert all(each["fault"] is True for each in documents.values())
    (exception,) = documents["AWS::Lambda::Function"]["cause"]["exceptions"]
    assert (exception["type"], exception["message"]) == ("KeyError", "'x'")
    assert HEX.fullmatch(exception["id"])


@pytest.mark.parametrize(
    ("body", "error"), [("hang", "Sandbox.Timedout"), ("exit", "Runtime.ExitError")], ids=["timeout", "crash"]
)
async def test_killed_environment_ends_its_invocation_once(
    prepare: Prepare, journal: Journal, body: str, error: str
) -> None:
    runtime = prepare(timeout_seconds=1.0)

    await runtime.invoke(build_message(body))
    await runtime.stop()

    (invocation,) = find(journal, "invocation")
    assert invocation["error"] == error
    assert invocation["startedAt"] <= invocation["endedAt"]
    assert (await wait_for_trace(journal, 2))["AWS::Lambda::Function"]["cause"]["exceptions"][0]["type"] == error
    assert len(find(journal, "trace")) == 2


async def test_invocation_that_waits_when_the_local_run_ends_is_recorded(prepare: Prepare, journal: Journal) -> None:
    runtime = prepare(concurrency=1)
    await runtime.start()

    waiting = [asyncio.ensure_future(runtime.invoke(build_message(body))) for body in ("hang", "")]
    await find_some(journal, "invocation", 2)
    await runtime.stop()
    await asyncio.wait(waiting)

    assert [facts["error"] for facts in find(journal, "invocation")] == ["Runtime.ExitError", "Runtime.Stopped"]


async def test_invocation_is_shown_while_it_runs(prepare: Prepare, journal: Journal) -> None:
    runtime = prepare(concurrency=1, timeout_seconds=2.0)
    running = asyncio.ensure_future(runtime.invoke(build_message("hang")))

    (invocation,) = await find_some(journal, "invocation", 1)

    assert invocation.items() >= {"function": "websocket", "purpose": "$default"}.items()
    assert invocation["event"]["body"] == "hang"
    assert "endedAt" not in invocation
    await running
    assert "endedAt" in find(journal, "invocation")[0]


async def test_other_datagrams_are_ignored(prepare: Prepare, journal: Journal, address: str) -> None:
    host, _, port = address.partition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in (b"", b"{}", b"{}\n{", b"{}\n[]", b'{}\n{"trace_id": 5}', b"\xff\n\xff", b"{}\n" + b"[" * 9000):
            sender.sendto(datagram, (host, int(port)))

    await prepare().invoke(build_message("subsegment"))

    assert len(await wait_for_trace(journal, 3)) == 3


# Logs


@pytest.mark.parametrize("log_format", ["JSON", "Text"])
async def test_log_belongs_to_the_invocation_that_wrote_it(prepare: Prepare, journal: Journal, log_format: str) -> None:
    runtime = prepare(logging={"LogFormat": log_format})

    await runtime.invoke(build_message("log"))

    logged, printed = await find_some(journal, "log", 2)
    (invocation,) = [entry for entry in journal.get_timeline(CONNECTION) if entry["kind"] == "invocation"]
    request_id = invocation["keys"][2]
    if log_format == "JSON":
        assert logged["record"].items() >= {"requestId": request_id, "message": "logged"}.items()
    else:
        assert request_id in logged["record"]
        assert logged["record"].endswith("logged")
    assert printed == {"function": "websocket", "record": "printed"}
    keys = [entry["keys"] for entry in journal.get_timeline(CONNECTION) if entry["kind"] == "log"]
    assert keys == [[request_id, CONNECTION] if log_format == "JSON" else [request_id], [request_id]]


async def test_reloaded_function_is_recorded_as_before(prepare: Prepare, journal: Journal) -> None:
    runtime = prepare()
    await runtime.start()
    await runtime.invoke(build_message(""))

    await runtime.replace(HANDLER.replace('"sampled"', '"new"'))
    await runtime.invoke(build_message(""))

    assert [facts["answer"] for facts in find(journal, "invocation")] == [{"sampled": "1"}, {"new": "1"}]
