"""Run the functions with each trace context that Lambda can send.

The emulator sends none. So the shipped image runs without it, against a Runtime API that sends trace headers
(https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html) and a UDP socket instead of the X-Ray daemon.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from tests.fixtures.emulator import PATIENCE_SECONDS, SETTINGS, WEBSOCKET, FakeAws, RunFunction
from tests.fixtures.events import CONNECTION_ID, EventFactory, load_event
from tests.fixtures.functions import AUTHORIZER, EXECUTION_ENVIRONMENT, get_effect
from tests.fixtures.network import LoopbackServer, find_free_port
from tests.fixtures.runtime_api import PARENT, RuntimeApi, build_trace_header, build_trace_id
from tests.fixtures.tokens import JWKS_ENDPOINT, Sign

NO_TRACE_HEADER: dict[str, str] = {}


@pytest.fixture
def daemon() -> Iterator[socket.socket]:
    """Listen at the address to which the SDK sends its subsegments."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(PATIENCE_SECONDS)
        yield receiver


def receive_subsegment(daemon: socket.socket) -> dict[str, Any]:
    _, _, document = daemon.recv(65536).partition(b"\n")
    subsegment: dict[str, Any] = json.loads(document)
    return subsegment


RunTraced = Callable[[str, dict[str, str]], AbstractContextManager[RuntimeApi]]


@pytest.fixture
def run_traced(run_function: RunFunction, daemon: socket.socket) -> RunTraced:
    """Return a context manager that runs a function with a Runtime API that sends trace headers."""

    @contextmanager
    def run(function: str, environ: dict[str, str]) -> Iterator[RuntimeApi]:
        with RuntimeApi() as runtime_api:
            addresses = {
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{runtime_api.server_port}",
                "AWS_XRAY_DAEMON_ADDRESS": f"127.0.0.1:{daemon.getsockname()[1]}",
            }
            with run_function(function, [], EXECUTION_ENVIRONMENT | SETTINGS | environ | addresses) as runtime_api.log:
                yield runtime_api

    return run


def build_endpoints(aws: FakeAws) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL_DYNAMODB": aws.url, "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": f"{aws.url}/prod"}


@pytest.mark.parametrize(
    "before", [[], [NO_TRACE_HEADER, build_trace_header("a", sampled=False)]], ids=["first", "later"]
)
def test_only_calls_of_sampled_invocations_are_reported(
    run_traced: RunTraced, aws: FakeAws, daemon: socket.socket, before: list[dict[str, str]]
) -> None:
    sampled, unsampled = build_trace_header("b", sampled=True), build_trace_header("c", sampled=False)
    with run_traced("websocket", WEBSOCKET | build_endpoints(aws)) as websocket:
        answers = [websocket.invoke(load_event("disconnect"), each) for each in [*before, sampled, unsampled]]
        answers.append(websocket.invoke(load_event("default"), build_trace_header("d", sampled=True)))
        delete, disconnect, post, message = (receive_subsegment(daemon) for _ in range(4))

    assert answers == [{"statusCode": 200}] * len(answers)
    assert [(each["trace_id"], each["parent_id"], each["name"]) for each in (disconnect, message)] == [
        (build_trace_id("b"), PARENT, "websocket"),
        (build_trace_id("d"), PARENT, "websocket"),
    ]
    assert [(each["trace_id"], each["parent_id"], each["aws"]["operation"]) for each in (delete, post)] == [
        (build_trace_id("b"), disconnect["id"], "DeleteItem"),
        (build_trace_id("d"), message["id"], "PostToConnection"),
    ]
    assert [each["annotations"] for each in (disconnect, message)] == [
        {"connection_id": CONNECTION_ID, "route": "$disconnect", "reason": "client_closed"},
        {"connection_id": CONNECTION_ID, "route": "$default", "reason": "ok"},
    ]


def test_x_ray_sdk_is_not_imported_before_the_first_sampled_invocation(
    run_traced: RunTraced, aws: FakeAws, daemon: socket.socket, disconnect_event: EventFactory
) -> None:
    """Find the imports in Python's log. The import takes time, so only a sampled invocation should wait for it."""
    report = {"PYTHONPROFILEIMPORTTIME": "1"}
    with run_traced("websocket", WEBSOCKET | build_endpoints(aws) | report) as websocket:
        for context in (NO_TRACE_HEADER, build_trace_header("a", sampled=False)):
            websocket.invoke(disconnect_event(), context)
        unsampled = find_imports(websocket.log())
        websocket.invoke(disconnect_event(), build_trace_header("b", sampled=True))
        receive_subsegment(daemon)
        sampled = find_imports(websocket.log())

    assert "botocore" in unsampled
    assert ("aws_xray_sdk" in unsampled, "aws_xray_sdk" in sampled) == (False, True)


def find_imports(log: str) -> set[str]:
    """Return the packages whose import is in the log."""
    reported = re.findall(r"^import time:.*\| +([\w.]+)$", log, re.MULTILINE)
    return {module.partition(".")[0] for module in reported}


@pytest.mark.parametrize(
    "before", [[], [NO_TRACE_HEADER, build_trace_header("a", sampled=False)]], ids=["first", "later"]
)
def test_download_of_keys_is_reported_if_it_is_sampled(
    run_traced: RunTraced, jwks: LoopbackServer, daemon: socket.socket, sign: Sign, before: list[dict[str, str]]
) -> None:
    """The first token and an unknown `kid` cause a download."""
    tokens = [*(sign() for _ in before), sign(header={"kid": "unknown"})]
    with run_traced("authorizer", {**AUTHORIZER, JWKS_ENDPOINT: jwks.url}) as authorizer:
        answers = [
            authorizer.invoke(load_event("authorizer", queryStringParameters={"idToken": token}), context)
            for token, context in zip(tokens, [*before, build_trace_header("c", sampled=True)], strict=True)
        ]
        download, decision = receive_subsegment(daemon), receive_subsegment(daemon)

    assert [get_effect(answer) for answer in answers] == [*["Allow"] * len(before), "Deny"]
    assert [(each["name"], each["trace_id"], each["parent_id"]) for each in (download, decision)] == [
        ("jwks", build_trace_id("c"), decision["id"]),
        ("authorizer", build_trace_id("c"), PARENT),
    ]
    assert decision["annotations"] == {"connection_id": CONNECTION_ID, "route": "$connect", "reason": "unknown_kid"}
    assert ("fault" in download, "fault" in decision) == (False, False)


def test_decision_of_a_sampled_invocation_is_reported_without_a_download(
    run_traced: RunTraced, jwks: LoopbackServer, daemon: socket.socket, sign: Sign
) -> None:
    event = load_event("authorizer", queryStringParameters={"idToken": sign()})
    with run_traced("authorizer", {**AUTHORIZER, JWKS_ENDPOINT: jwks.url}) as authorizer:
        authorizer.invoke(event, NO_TRACE_HEADER)
        authorizer.invoke(event, build_trace_header("a", sampled=True))
        decision = receive_subsegment(daemon)

    assert decision["annotations"] == {"connection_id": CONNECTION_ID, "route": "$connect", "reason": "ok"}


def test_x_ray_sdk_is_not_imported_before_the_first_sampled_download(
    run_traced: RunTraced, jwks: LoopbackServer, daemon: socket.socket, sign: Sign
) -> None:
    known, unknown = (
        load_event("authorizer", queryStringParameters={"idToken": token})
        for token in (sign(), sign(header={"kid": "unknown"}))
    )
    report = {"PYTHONPROFILEIMPORTTIME": "1"}
    with run_traced("authorizer", {**AUTHORIZER, JWKS_ENDPOINT: jwks.url, **report}) as authorizer:
        for context in (NO_TRACE_HEADER, build_trace_header("a", sampled=False)):
            authorizer.invoke(known, context)
        unsampled = find_imports(authorizer.log())
        authorizer.invoke(unknown, build_trace_header("b", sampled=True))
        receive_subsegment(daemon)
        sampled = find_imports(authorizer.log())

    assert "joserfc" in unsampled
    assert ("aws_xray_sdk" in unsampled, "aws_xray_sdk" in sampled) == (False, True)


def test_failed_download_of_keys_is_reported_as_a_fault(
    run_traced: RunTraced, daemon: socket.socket, sign: Sign
) -> None:
    event = load_event("authorizer", queryStringParameters={"idToken": sign()})
    with run_traced("authorizer", {**AUTHORIZER, JWKS_ENDPOINT: f"http://127.0.0.1:{find_free_port()}"}) as authorizer:
        authorizer.invoke(event, build_trace_header("d", sampled=True))
        download, decision = receive_subsegment(daemon), receive_subsegment(daemon)

    assert [(each["name"], each["fault"]) for each in (download, decision)] == [("jwks", True), ("authorizer", True)]
    assert decision["annotations"]["reason"] == "KeySetUnavailable"
