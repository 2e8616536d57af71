"""The authorizer's log lines: one for each decision, and the metrics in it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import nullcontext, suppress
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from benchmarks.user_pool import SUB
from tests.fixtures import ROOT
from tests.fixtures.emf import Metrics, drop_metrics, read_metrics
from tests.fixtures.events import CONNECTION_ID, load_event
from tests.fixtures.functions import AUTHORIZER, get_effect, import_function
from tests.fixtures.log_lines import Line, read_lines
from tests.fixtures.network import Answer, LoopbackServer, find_free_port
from tests.fixtures.tokens import JWKS_ENDPOINT, Sign

Lines = Callable[[], list[Line]]

NAME = {"FunctionName": "gate"}
IDS = {"connectionId": CONNECTION_ID, "apiRequestId": "L0SM9dEPvHcFdUQ=", "routeKey": "$connect"}
ALLOWED_ORIGIN = "https://app.example.com"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Lines:
    caplog.set_level(logging.DEBUG)
    return lambda: read_lines(caplog, capsys)


@pytest.fixture(scope="module")
def imported_gate() -> ModuleType:
    """Import the authorizer in a function of this name."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return import_function("authorizer", monkeypatch, {"AWS_LAMBDA_FUNCTION_NAME": "gate", **AUTHORIZER})


@pytest.fixture
def gate(
    imported_gate: ModuleType, monkeypatch: pytest.MonkeyPatch, jwks: LoopbackServer, options: dict[str, str]
) -> ModuleType:
    environ = {**AUTHORIZER, **options, JWKS_ENDPOINT: jwks.url}
    monkeypatch.setattr(imported_gate, "handler", imported_gate.Authorizer(imported_gate.Settings.read(environ)))
    return imported_gate


def decide(gate: ModuleType, token: str, context: object = None) -> str:
    return get_effect(gate.handler(load_event("authorizer", queryStringParameters={"idToken": token}), context))


def test_accepted_connection_is_one_line_with_the_user(gate: ModuleType, sign: Sign, lines: Lines) -> None:
    assert decide(gate, sign()) == "Allow"

    (line,) = lines()
    assert drop_metrics(line) == {"level": "INFO", "message": "connection accepted", **IDS, "sub": SUB}
    assert read_metrics(line) == Metrics({"Refused": 0}, [NAME])


def test_accepted_connection_is_not_written_above_the_level_info(
    gate: ModuleType, sign: Sign, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    assert decide(gate, sign()) == "Allow"

    assert lines() == []


def test_accepted_line_is_one_json_object_as_the_runtime_writes_it(
    gate: ModuleType, sign: Sign, lines: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    """tests/container/test_authorizer.py compares it with a line of the runtime's own formatter."""
    odd_subject = r'"}\ {"level": "ERROR"} '

    decide(gate, sign(sub=odd_subject), SimpleNamespace(aws_request_id="8476a536-e9f4-11e8-9739-2dfe598c3fcd"))

    (text,) = capsys.readouterr().out.splitlines()
    line = gate.json.loads(text)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line["timestamp"])
    assert (line["logger"], line["requestId"]) == ("authorizer", "8476a536-e9f4-11e8-9739-2dfe598c3fcd")
    assert (line["level"], line["sub"]) == ("INFO", odd_subject)


@pytest.mark.parametrize(
    "options", [{"ALLOWED_ORIGINS": ALLOWED_ORIGIN, "ALLOW_MISSING_ORIGIN": "true"}], ids=["strict"]
)
@pytest.mark.parametrize(
    ("claims", "headers", "reason", "reason_class"),
    [
        (None, {}, "missing_token", "credential"),
        ({"header": {"alg": "none"}}, {}, "unsupported_algorithm", "signature"),
        ({"aud": "another-client"}, {}, "invalid_claim.aud", "claims"),
        ({"exp": 1}, {}, "expired_token.exp", "expired"),
        ({}, {"Origin": "https://evil.example"}, "origin_not_allowed", "policy"),
    ],
)
def test_rejected_connection_is_one_line_with_the_reason_and_its_class(
    gate: ModuleType,
    sign: Sign,
    lines: Lines,
    *,
    claims: dict[str, Any] | None,
    headers: dict[str, str],
    reason: str,
    reason_class: str,
) -> None:
    query = {} if claims is None else {"idToken": sign(**claims)}

    answer = gate.handler(load_event("authorizer", queryStringParameters=query, headers=headers), None)

    assert get_effect(answer) == "Deny"
    (line,) = lines()
    assert drop_metrics(line) == {
        "level": "WARNING",
        "message": "connection rejected",
        **IDS,
        "reason": reason,
        "ReasonClass": reason_class,
    }
    assert read_metrics(line) == Metrics({"Refused": 1}, [NAME, {**NAME, "ReasonClass": reason_class}])


def test_every_reason_has_its_class(imported_authorizer: ModuleType) -> None:
    source = (ROOT / "images" / "authorizer" / "authorizer.py").read_text()
    reasons = set(re.findall(r'Rejected\(f?"(\w[\w-]*)', source)) - {"repeated_"}
    signature = {
        "unsupported_algorithm",
        "unsupported_header",
        "unsupported_type",
        "missing_kid",
        "malformed_kid",
        "unknown_kid",
        "bad_signature",
    }
    repeated = {"repeated_idToken", "repeated_origin", "repeated_sec-websocket-protocol"}

    assert (reasons | repeated) - signature == set(imported_authorizer.REASON_CLASSES)
    assert set(imported_authorizer.REASON_CLASSES.values()) == {"credential", "claims", "expired", "policy"}


def test_every_decision_without_keys_is_an_error_line(
    gate: ModuleType, sign: Sign, lines: Lines, jwks: LoopbackServer
) -> None:
    """Also of those after the first, which cause no download."""
    jwks.answer = Answer(503)

    for _ in range(2):
        with suppress(gate.KeySetUnavailable):
            decide(gate, sign())

    assert len(jwks.requests) == 1
    first, second = lines()
    for line in (first, second):
        reason = f"{gate.handler.settings.jwks_url} answered 503"
        expected = {"level": "ERROR", "message": "key set unavailable", **IDS, "reason": reason}
        assert drop_metrics(line) == expected
        assert read_metrics(line) == Metrics({"KeysUnavailable": 1}, [NAME])


def test_failed_refresh_is_an_error_line_beside_the_line_of_the_decision(
    gate: ModuleType, sign: Sign, lines: Lines, jwks: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(gate, sign())
    jwks.answer = Answer(503)
    monkeypatch.setattr(gate.handler.jwks, "_downloaded_at", gate.time.time() - gate.JWKS_STALE_SECONDS)
    lines()

    assert [decide(gate, sign()), decide(gate, sign())] == ["Allow", "Allow"]

    written = lines()
    told = [(line["message"], line["connectionId"], read_metrics(line).values) for line in written]
    assert [line["reason"] for line in written if line["level"] == "ERROR"] == [
        f"{gate.handler.settings.jwks_url} answered 503"
    ]
    assert sorted(told) == [
        ("connection accepted", CONNECTION_ID, {"Refused": 0}),
        ("connection accepted", CONNECTION_ID, {"Refused": 0}),
        ("key set unavailable", CONNECTION_ID, {"KeysUnavailable": 1}),
    ]


def test_event_without_ids_is_decided(gate: ModuleType, sign: Sign, lines: Lines) -> None:
    event = load_event("authorizer", queryStringParameters={"idToken": sign()})

    assert get_effect(gate.handler(event | {"requestContext": None}, None)) == "Allow"

    (line,) = lines()
    assert (line["sub"], line["connectionId"]) == (SUB, None)


TRACE = "Root=1-5759e988-aaaaaaaaaaaaaaaaaaaaaaaa;Parent=53995c3f42cd8ad8"


@pytest.mark.parametrize("trace", [f"{TRACE};Sampled=0", f"{TRACE};Sampled=1", "Root=1;Sampled=1"])
def test_decision_does_not_depend_on_the_trace(
    gate: ModuleType, sign: Sign, monkeypatch: pytest.MonkeyPatch, trace: str
) -> None:
    """No X-Ray daemon listens."""
    monkeypatch.setenv("_X_AMZN_TRACE_ID", trace)
    monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", f"127.0.0.1:{find_free_port()}")

    assert decide(gate, sign()) == "Allow"


@pytest.mark.parametrize(
    ("jwks_status", "claims", "reason"),
    [(200, {}, "ok"), (200, {"aud": "another-client"}, "invalid_claim.aud"), (503, {}, "KeySetUnavailable")],
    ids=["accepted", "rejected", "failed"],
)
def test_annotations_say_what_became_of_the_handshake(
    *,
    gate: ModuleType,
    jwks: LoopbackServer,
    sign: Sign,
    subsegments: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    jwks_status: int,
    claims: dict[str, Any],
    reason: str,
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", f"{TRACE};Sampled=1")
    jwks.answer = jwks.answer._replace(status=jwks_status)

    failed = reason == "KeySetUnavailable"
    with pytest.raises(gate.KeySetUnavailable) if failed else nullcontext():
        decide(gate, sign(**claims))

    download, handshake = subsegments
    assert (download["name"], handshake["name"], "fault" in handshake) == ("jwks", "authorizer", failed)
    assert handshake["annotations"] == {"connection_id": CONNECTION_ID, "route": "$connect", "reason": reason}
