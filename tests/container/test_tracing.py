"""Run the functions with every trace context that Lambda can send.

The emulator sends none. So the shipped image runs without it, against a Runtime API that sends trace ids
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
from tests.fixtures.functions import AUTHORIZER, EXECUTION_ENVIRONMENT, effect
from tests.fixtures.network import LoopbackServer, free_port
from tests.fixtures.runtime_api import PARENT, RuntimeApi, root, trace
from tests.fixtures.tokens import JWKS_ENDPOINT, Sign

UNTRACED: dict[str, str] = {}


@pytest.fixture
def daemon() -> Iterator[socket.socket]:
    """Listen where the SDK sends its subsegments."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(PATIENCE_SECONDS)
        yield receiver


def received(daemon: socket.socket) -> dict[str, Any]:
    _, _, document = daemon.recv(65536).partition(b"\n")
    subsegment: dict[str, Any] = json.loads(document)
    return subsegment


Traced = Callable[[str, dict[str, str]], AbstractContextManager[RuntimeApi]]


@pytest.fixture
def traced(run_function: RunFunction, daemon: socket.socket) -> Traced:
    @contextmanager
    def running(function: str, environ: dict[str, str]) -> Iterator[RuntimeApi]:
        with RuntimeApi() as runtime_api:
            addresses = {
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{runtime_api.server_port}",
                "AWS_XRAY_DAEMON_ADDRESS": f"127.0.0.1:{daemon.getsockname()[1]}",
            }
            with run_function(function, [], EXECUTION_ENVIRONMENT | SETTINGS | environ | addresses) as runtime_api.log:
                yield runtime_api

    return running


def endpoints(aws: FakeAws) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL_DYNAMODB": aws.url, "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": f"{aws.url}/prod"}


@pytest.mark.parametrize("before", [[], [UNTRACED, trace("a", sampled=False)]], ids=["first", "later"])
def test_calls_of_a_sampled_invocation_are_reported_and_no_others(
    traced: Traced, aws: FakeAws, daemon: socket.socket, before: list[dict[str, str]]
) -> None:
    sampled, unsampled = trace("b", sampled=True), trace("c", sampled=False)
    with traced("websocket", WEBSOCKET | endpoints(aws)) as websocket:
        answers = [websocket.invoke(load_event("disconnect"), each) for each in [*before, sampled, unsampled]]
        answers.append(websocket.invoke(load_event("default"), trace("d", sampled=True)))
        delete, disconnect, post, message = (received(daemon) for _ in range(4))

    assert answers == [{"statusCode": 200}] * len(answers)
    assert [(each["trace_id"], each["parent_id"], each["name"]) for each in (disconnect, message)] == [
        (root("b"), PARENT, "websocket"),
        (root("d"), PARENT, "websocket"),
    ]
    assert [(each["trace_id"], each["parent_id"], each["aws"]["operation"]) for each in (delete, post)] == [
        (root("b"), disconnect["id"], "DeleteItem"),
        (root("d"), message["id"], "PostToConnection"),
    ]
    assert [each["annotations"] for each in (disconnect, message)] == [
        {"connection_id": CONNECTION_ID, "route": "$disconnect", "reason": "client_closed"},
        {"connection_id": CONNECTION_ID, "route": "$default", "reason": "ok"},
    ]


def test_x_ray_sdk_is_not_imported_before_the_first_sampled_invocation(
    traced: Traced, aws: FakeAws, daemon: socket.socket, disconnect_event: EventFactory
) -> None:
    """Only a sampled invocation waits for the import, which takes time. Python logs each import."""
    report = {"PYTHONPROFILEIMPORTTIME": "1"}
    with traced("websocket", WEBSOCKET | endpoints(aws) | report) as websocket:
        for context in (UNTRACED, trace("a", sampled=False)):
            websocket.invoke(disconnect_event(), context)
        unsampled = imported(websocket.log())
        websocket.invoke(disconnect_event(), trace("b", sampled=True))
        received(daemon)
        sampled = imported(websocket.log())

    assert "botocore" in unsampled
    assert ("aws_xray_sdk" in unsampled, "aws_xray_sdk" in sampled) == (False, True)


def imported(log: str) -> set[str]:
    """Return the packages whose import is in the log."""
    reported = re.findall(r"^import time:.*\| +([\w.]+)$", log, re.MULTILINE)
    return {module.partition(".")[0] for module in reported}


@pytest.mark.parametrize("before", [[], [UNTRACED, trace("a", sampled=False)]], ids=["first", "later"])
def test_download_of_keys_is_reported_if_it_is_sampled(
    traced: Traced, jwks: LoopbackServer, daemon: socket.socket, sign: Sign, before: list[dict[str, str]]
) -> None:
    """The first token and an unknown `kid` cause a download."""
    tokens = [*(sign() for _ in before), sign(header={"kid": "unknown"})]
    with traced("authorizer", {**AUTHORIZER, JWKS_ENDPOINT: jwks.url}) as authorizer:
        answers = [
            authorizer.invoke(load_event("authorizer", queryStringParameters={"idToken": token}), context)
            for token, context in zip(tokens, [*before, trace("c", sampled=True)], strict=True)
        ]
        download, decision = received(daemon), received(daemon)

    assert [effect(answer) for answer in answers] == [*["Allow"] * len(before), "Deny"]
    assert [(each["name"], each["trace_id"], each["parent_id"]) for each in (download, decision)] == [
        ("jwks", root("c"), decision["id"]),
        ("authorizer", root("c"), PARENT),
    ]
    assert decision["annotations"] == {"connection_id": CONNECTION_ID, "route": "$connect", "reason": "unknown_kid"}
    assert ("fault" in download, "fault" in decision) == (False, False)


def test_decision_of_a_sampled_invocation_is_reported_without_a_download(
    traced: Traced, jwks: LoopbackServer, daemon: socket.socket, sign: Sign
) -> None:
    event = load_event("authorizer", queryStringParameters={"idToken": sign()})
    with traced("authorizer", {**AUTHORIZER, JWKS_ENDPOINT: jwks.url}) as authorizer:
        authorizer.invoke(event, UNTRACED)
        authorizer.invoke(event, trace("a", sampled=True))
        decision = received(daemon)

    assert decision["annotations"] == {"connection_id": CONNECTION_ID, "route": "$connect", "reason": "ok"}


def test_x_ray_sdk_is_not_imported_before_the_first_sampled_download(
    traced: Traced, jwks: LoopbackServer, daemon: socket.socket, sign: Sign
) -> None:
    known, unknown = (
        load_event("authorizer", queryStringParameters={"idToken": token})
        for token in (sign(), sign(header={"kid": "unknown"}))
    )
    report = {"PYTHONPROFILEIMPORTTIME": "1"}
    with traced("authorizer", {**AUTHORIZER, JWKS_ENDPOINT: jwks.url, **report}) as authorizer:
        for context in (UNTRACED, trace("a", sampled=False)):
            authorizer.invoke(known, context)
        unsampled = imported(authorizer.log())
        authorizer.invoke(unknown, trace("b", sampled=True))
        received(daemon)
        sampled = imported(authorizer.log())

    assert "joserfc" in unsampled
    assert ("aws_xray_sdk" in unsampled, "aws_xray_sdk" in sampled) == (False, True)


def test_failed_download_of_keys_is_reported_as_a_fault(traced: Traced, daemon: socket.socket, sign: Sign) -> None:
    event = load_event("authorizer", queryStringParameters={"idToken": sign()})
    with traced("authorizer", {**AUTHORIZER, JWKS_ENDPOINT: f"http://127.0.0.1:{free_port()}"}) as authorizer:
        authorizer.invoke(event, trace("d", sampled=True))
        download, decision = received(daemon), received(daemon)

    assert [(each["name"], each["fault"]) for each in (download, decision)] == [("jwks", True), ("authorizer", True)]
    assert decision["annotations"]["reason"] == "KeySetUnavailable"
