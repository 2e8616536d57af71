"""What `make up` prints of log records: a short line for each, and nothing that controls the terminal."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from local.logs import TerminalFormatter, TerminalHandler
from local.progress import Progress

FUNCTION = "function.websocket"


@pytest.fixture
def terminal() -> Iterator[io.StringIO]:
    """What is printed of the function's and the gateway's records."""
    output = io.StringIO()
    handler = TerminalHandler(Progress(output))
    handler.setFormatter(TerminalFormatter())
    loggers = [logging.getLogger(name) for name in (FUNCTION, "local.apigateway.server")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(logging.INFO)
    yield output
    for logger in loggers:
        logger.removeHandler(handler)
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


def record(**changes: Any) -> dict[str, Any]:
    """A record as the runtime writes it."""
    return {"timestamp": "2026-01-01T00:00:00Z", "level": "INFO", "message": "connected", "logger": "websocket",
            "requestId": "8476a536", **changes}  # fmt: skip


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        (record(), "INFO connected"),
        (record(connectionId="L0SM9c=", count=2, gone=None), "INFO connected connectionId=L0SM9c= count=2 gone=null"),
        (record(level="WARNING", message="connection rejected", reason="missing_group"),
         "WARNING connection rejected reason=missing_group"),
        (record(message={"a": [1, "é"]}), 'INFO {"a": [1, "é"]}'),
        (record(message=""), "INFO"),
        (record(message="LAMBDA_WARNING: Unhandled exception. The most likely cause is"),
         "INFO LAMBDA_WARNING: Unhandled exception"),
        (record(level="ERROR", message="it failed", errorType="KeyError", errorMessage="'x'", location="/a.py:f:3"),
         "ERROR it failed: KeyError: 'x'"),
        ({"timestamp": "", "level": "ERROR", "errorMessage": "no", "errorType": "ValueError", "requestId": "8476a536"},
         "ERROR ValueError: no"),
    ],
)  # fmt: skip
def test_json_record_of_a_function_is_one_short_line(
    terminal: io.StringIO, written: dict[str, Any], printed: str
) -> None:
    logging.getLogger(FUNCTION).info(json.dumps(written))

    assert terminal.getvalue() == f"  websocket | {printed}\n"


def test_stack_trace_follows_line_by_line(terminal: io.StringIO) -> None:
    trace = ['  File "/src/websocket.py", line 3, in handler\n    x\n', '  File "a.py", line 1\n']

    logging.getLogger(FUNCTION).info(json.dumps(record(errorType="KeyError", errorMessage="'x'", stackTrace=trace)))

    assert terminal.getvalue().splitlines() == [
        "  websocket | INFO connected: KeyError: 'x'",
        '  websocket |   File "/src/websocket.py", line 3, in handler',
        "  websocket |     x",
        '  websocket |   File "a.py", line 1',
    ]


@pytest.mark.parametrize(
    "line",
    [
        "plain text",
        "",
        '{"an": "event"}',
        '{"level": "INFO"}',
        '{"message": "hello"}',
        "[1, 2]",
        "null",
        "{",
        "[" * 100_000,
        '{"level": "INFO", "message": "cut',
    ],
    ids=lambda line: line[:40],
)
def test_any_other_line_is_printed_as_it_is(terminal: io.StringIO, line: str) -> None:
    logging.getLogger(FUNCTION).info("%s", line)

    assert terminal.getvalue() == f"  websocket | {line}\n"


def test_json_of_others_than_functions_is_left_alone(terminal: io.StringIO) -> None:
    logging.getLogger("local.apigateway.server").info(json.dumps(record()))

    assert terminal.getvalue() == f"  server | {json.dumps(record())}\n"


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x9b2J", "\u202e", "\r"])
@pytest.mark.parametrize(
    "write",
    [
        lambda text: f"said {text}",
        lambda text: json.dumps(record(message=text)),
        lambda text: json.dumps(record(**{f"{text}key": "a"})),
        lambda text: json.dumps(record(key=[text])),
        lambda text: json.dumps(record(level=text)),
        lambda text: json.dumps(record(stackTrace=[text])),
    ],
    ids=["text", "message", "key", "value", "level", "stack trace"],
)
def test_function_cannot_control_the_terminal(terminal: io.StringIO, write: Any, hostile: str) -> None:
    logging.getLogger(FUNCTION).info("%s", write(hostile))

    assert [character for character in terminal.getvalue().replace("\n", "") if not character.isprintable()] == []


def test_exception_of_ours_is_printed_with_its_traceback(terminal: io.StringIO) -> None:
    try:
        int("name")
    except ValueError:
        logging.getLogger("local.apigateway.server").exception("cannot be served")

    lines = terminal.getvalue().splitlines()
    assert lines[0] == "  server | cannot be served"
    assert lines[-1].startswith("  server | ValueError: ")
