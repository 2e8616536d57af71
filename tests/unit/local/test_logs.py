"""How `make up` prints log records and decisions: one aligned line each, without characters that control the terminal."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from local.journal import Journal
from local.logs import Style, TerminalHandler
from local.progress import Progress

FUNCTION, GATEWAY = "function.websocket", "local.apigateway.server"
CONNECTION, REQUEST = "L0SM9cOFvHcCIhw=", "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
CLOCK = re.compile(r"[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}  ")
SHORT = "L0SM9cOF"  # the part of the id that is shown

Attach = Callable[..., io.StringIO]


@pytest.fixture
def journal() -> Journal:
    """A journal with one connection and a running invocation."""
    journal = Journal()
    journal.record("handshake", CONNECTION, "request", method="GET", path="/prod", headers=())
    journal.record("invocation", CONNECTION, "request", REQUEST, "1-trace", purpose="$connect")
    return journal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def attach(journal: Journal) -> Iterator[Attach]:
    """Attach a handler that prints records of the function and of the gateway in a style."""
    attached: list[tuple[logging.Logger, logging.Handler]] = []

    def attach_handler(style: Style = "short", output: io.StringIO | None = None) -> io.StringIO:
        output = output or io.StringIO()
        handler = TerminalHandler(Progress(output), journal, style)
        handler.setFormatter(logging.Formatter(logging.BASIC_FORMAT))  # as basicConfig does
        for logger in map(logging.getLogger, (FUNCTION, GATEWAY)):
            logger.addHandler(handler)
            logger.propagate = False
            logger.setLevel(logging.INFO)
            attached.append((logger, handler))
        return output

    yield attach_handler
    for logger, handler in attached:
        logger.removeHandler(handler)
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


@pytest.fixture
def terminal(attach: Attach) -> io.StringIO:
    return attach()


def read_lines(output: io.StringIO) -> list[str]:
    """Return what is printed without the times, which are checked."""
    printed = output.getvalue().splitlines()
    return [CLOCK.sub("", line, count=1) if CLOCK.match(line) else line for line in printed]


def split_columns(line: str) -> list[str]:
    """Return connection, who, route, result, duration and text of a line without its time."""
    ends = [0, 10, 23, 36, 45, 55, len(line) + 55]
    return [line[start:end].strip() for start, end in pairwise(ends)]


def record(**changes: Any) -> dict[str, Any]:
    """Return a record in the runtime's format."""
    return {"timestamp": "2026-01-01T00:00:00Z", "level": "INFO", "message": "connected", "logger": "websocket",
            "requestId": REQUEST, **changes}  # fmt: skip


# Records of functions


@pytest.mark.parametrize(
    ("written", "level", "text"),
    [
        (record(), "INFO", "connected"),
        (record(count=2, gone=None), "INFO", "connected count=2 gone=null"),
        (record(level="WARNING", message="connection rejected", reason="missing_group", sub="ada"),
         "WARNING", "connection rejected: missing_group sub=ada"),
        (record(message={"a": [1, "é"]}), "INFO", '{"a": [1, "é"]}'),
        (record(message=""), "INFO", ""),
        (record(message="LAMBDA_WARNING: Unhandled exception. The most likely cause is"),
         "INFO", "LAMBDA_WARNING: Unhandled exception"),
        (record(level="ERROR", message="it failed", errorType="KeyError", errorMessage="'x'", location="/a.py:f:3"),
         "ERROR", "it failed: KeyError: 'x'"),
        ({"timestamp": "", "level": "ERROR", "errorMessage": "no", "errorType": "ValueError", "requestId": REQUEST},
         "ERROR", "ValueError: no"),
        (record(Refused=0, FunctionName="f", _aws={"CloudWatchMetrics": [
            {"Namespace": "n", "Dimensions": [["FunctionName"]], "Metrics": [{"Name": "Refused", "Unit": "Count"}]}]}),
         "INFO", "connected"),
        (record(_aws="?"), "INFO", "connected"),
    ],
)  # fmt: skip
def test_json_record_of_a_function_is_one_line_with_its_connection_and_route(
    terminal: io.StringIO, written: dict[str, Any], level: str, text: str
) -> None:
    logging.getLogger(FUNCTION).info(json.dumps(written))

    (line,) = read_lines(terminal)
    assert split_columns(line) == [SHORT, "websocket", "$connect", level, "", text]


@pytest.mark.parametrize(
    ("written", "extra", "expected"),
    [
        (record(requestId="other"), {}, ["", "websocket", "", "INFO", "", "connected"]),
        (record(requestId="other", connectionId="another-id", routeKey="join"), {},
         ["another-", "websocket", "join", "INFO", "", "connected"]),
        (f"[WARNING]\t2026-01-01T00:00:00Z\t{REQUEST}\tlate", {},
         [SHORT, "websocket", "$connect", "WARNING", "", "late"]),
        ("printed", {"request_id": REQUEST}, [SHORT, "websocket", "$connect", "", "", "printed"]),
        ("printed", {"request_id": None}, ["", "websocket", "", "", "", "printed"]),
    ],
)  # fmt: skip
def test_record_is_printed_whether_its_connection_is_known_or_not(
    terminal: io.StringIO, written: Any, extra: dict[str, Any], expected: list[str]
) -> None:
    text = written if isinstance(written, str) else json.dumps(written)
    logging.getLogger(FUNCTION).info("%s", text, extra=extra)

    (line,) = read_lines(terminal)
    assert split_columns(line) == expected


def test_long_names_do_not_move_the_other_columns(terminal: io.StringIO) -> None:
    logger = logging.getLogger(f"{FUNCTION}.{'w' * 50}")
    logger.info("%s", json.dumps(record(connectionId="c" * 50, routeKey="r" * 50, level="L" * 50)))

    (line,) = read_lines(terminal)
    assert split_columns(line) == ["c" * 8, "websocket.…", "r" * 10 + "…", "L" * 6 + "…", "", "connected"]


TRACE = [
    '  File "/var/lang/lib/python3.13/threading.py", line 1, in run\n    run()\n',
    '  File "images/websocket/websocket.py", line 3, in handler\n    x\n    ^\n',
    '  File "/venv/lib/python3.11/site-packages/botocore/client.py", line 9, in call\n    call()\n',
]


def test_traceback_has_the_applications_frames_only(terminal: io.StringIO) -> None:
    logging.getLogger(FUNCTION).info(json.dumps(record(errorType="KeyError", errorMessage="'x'", stackTrace=TRACE)))

    first, *further = read_lines(terminal)
    assert split_columns(first)[-1] == "connected: KeyError: 'x'"
    assert further == [
        f'{" " * 14}  File "images/websocket/websocket.py", line 3, in handler', f"{' ' * 14}    x", f"{' ' * 14}    ^"
    ]  # fmt: skip


def test_traceback_in_text_has_the_applications_frames_only(terminal: io.StringIO) -> None:
    trace = "".join(TRACE).replace("\n", "\r")
    logging.getLogger(FUNCTION).info("%s", f"[ERROR] KeyError: 'x'\rTraceback (most recent call last):\r{trace}")

    first, *further = read_lines(terminal)
    assert split_columns(first)[-1] == "[ERROR] KeyError: 'x'"
    assert [line.strip() for line in further] == [
        "Traceback (most recent call last):", 'File "images/websocket/websocket.py", line 3, in handler', "x", "^"
    ]  # fmt: skip


def test_traceback_is_complete_if_that_is_asked_for(attach: Attach) -> None:
    output = attach("full")

    logging.getLogger(FUNCTION).info(json.dumps(record(stackTrace=TRACE)))

    assert [line.strip() for line in read_lines(output)[1:]] == [line.strip() for line in "".join(TRACE).splitlines()]


def test_traceback_without_a_frame_of_the_application_is_complete(terminal: io.StringIO) -> None:
    logging.getLogger(FUNCTION).info(json.dumps(record(stackTrace=[TRACE[0], TRACE[2]])))

    assert len(read_lines(terminal)) == 5


@pytest.mark.parametrize(
    "line",
    ["plain text", "", '{"an": "event"}', '{"level": "INFO"}', '{"message": "hello"}', "[1, 2]", "null", "{",
     "[" * 100_000, '{"a":' * 100_000, '{"level": "INFO", "message": "cut'],
    ids=lambda line: line[:40],
)  # fmt: skip
def test_any_other_line_is_printed_as_it_is(terminal: io.StringIO, line: str) -> None:
    logging.getLogger(FUNCTION).info("%s", line)

    (printed,) = read_lines(terminal)
    assert split_columns(printed) == ["", "websocket", "", "", "", line]


def test_json_of_other_loggers_is_printed_unchanged(terminal: io.StringIO) -> None:
    logging.getLogger(GATEWAY).info(json.dumps(record()))

    (line,) = read_lines(terminal)
    assert split_columns(line) == ["", "server", "", "", "", json.dumps(record())]


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
        lambda text: json.dumps(record(connectionId=text)),
        lambda text: json.dumps(record(routeKey=text)),
        lambda text: json.dumps(record(reason=text)),
        lambda text: f"[{text}]\t2026\t{REQUEST}\t{text}",
    ],
    ids=["text", "message", "key", "value", "level", "stack trace", "connection", "route", "reason", "text format"],
)
@pytest.mark.parametrize("style", ["short", "json"])
def test_function_cannot_control_the_terminal(attach: Attach, write: Any, hostile: str, style: Style) -> None:
    output = attach(style)

    logging.getLogger(FUNCTION).info("%s", write(hostile))

    assert [character for character in output.getvalue().replace("\n", "") if not character.isprintable()] == []


# Decisions of the gateway


def decide(journal: Journal, **facts: Any) -> None:
    journal.record("decision", CONNECTION, "request", "ada", **{"status": 101, "reason": None, **facts})


def answer(journal: Journal, **facts: Any) -> None:
    entry = journal.record("message", CONNECTION, "m", routeKey="$default", body="hello")
    journal.complete(entry, **{"result": "ok", "reason": None, "endedAt": entry.at + 0.012, **facts})


@pytest.mark.parametrize(
    ("happen", "expected"),
    [
        (decide, [SHORT, "gateway", "$connect", "101", "0 ms", "user ada"]),
        (lambda journal: decide(journal, status=403, reason="the authorizer denied"),
         [SHORT, "gateway", "$connect", "403", "0 ms", "the authorizer denied"]),
        (answer, [SHORT, "gateway", "$default", "ok", "12 ms", ""]),
        (lambda journal: answer(journal, result="error", reason="the function failed: KeyError"),
         [SHORT, "gateway", "$default", "error", "12 ms", "the function failed: KeyError"]),
        (lambda journal: journal.record("end", CONNECTION, code=1001, reason="Going away", cause="idle limit"),
         [SHORT, "gateway", "$disconnect", "1001", "", "idle limit"]),
        (lambda journal: journal.record("management", CONNECTION, method="POST", status=410, caller="Role/rooms"),
         [SHORT, "gateway", "", "410", "", "@connections POST by rooms"]),
        (lambda journal: journal.record("decision", None, "other", status=403, reason="its path is not /prod"),
         ["", "gateway", "$connect", "403", "", "its path is not /prod"]),
    ],
)  # fmt: skip
def test_decision_is_one_line_in_the_same_columns(
    terminal: io.StringIO, journal: Journal, monkeypatch: pytest.MonkeyPatch, happen: Any, expected: list[str]
) -> None:
    monkeypatch.setattr("local.journal.time.time", lambda: journal.find()[0][0]["openedAt"])
    happen(journal)

    (line,) = read_lines(terminal)
    assert split_columns(line) == expected


def test_other_entries_of_the_journal_are_not_printed(terminal: io.StringIO, journal: Journal) -> None:
    journal.record("message", CONNECTION, "m", routeKey="$default", body="not answered yet")
    journal.record("frame", CONNECTION, body="x")
    journal.record("management", CONNECTION, method="POST", status=200, caller="Role/rooms")

    assert terminal.getvalue() == ""


# JSON


def test_records_and_decisions_are_json_objects_on_a_line_each(attach: Attach, journal: Journal) -> None:
    output = attach("json")

    logging.getLogger(FUNCTION).info(json.dumps(record(sub="ada")))
    logging.getLogger(FUNCTION).info("printed")
    logging.getLogger(GATEWAY).warning("a warning")
    answer(journal, result="error", reason="no route")
    decide(journal)

    function, text, own, decision, accepted = map(json.loads, output.getvalue().splitlines())
    assert function == {**record(sub="ada"), "function": "websocket", "connectionId": CONNECTION}
    assert (text["message"], text["function"], "connectionId" in text) == ("printed", "websocket", False)
    assert (own["level"], own["logger"], own["message"]) == ("WARNING", GATEWAY, "a warning")
    assert decision.pop("timestamp").endswith("Z")
    assert decision == {
        "level": "WARNING", "logger": "gateway", "message": "message", "connectionId": CONNECTION, "apiRequestId": "m",
        "routeKey": "$default", "result": "error", "reason": "no route", "milliseconds": 12.0,
    }  # fmt: skip
    assert (accepted["result"], accepted["sub"], "reason" in accepted) == ("101", "ada", False)


# Our own records, and colours


def test_own_record_about_an_invocation_has_its_connection(terminal: io.StringIO) -> None:
    logging.getLogger(GATEWAY).warning("timed out", extra={"request_id": REQUEST})

    (line,) = read_lines(terminal)
    assert split_columns(line) == [SHORT, "server", "$connect", "WARNING", "", "timed out"]


def test_own_exception_is_printed_with_its_traceback(terminal: io.StringIO) -> None:
    try:
        int("name")
    except ValueError:
        logging.getLogger(GATEWAY).exception("cannot be served")

    first, *further = read_lines(terminal)
    assert split_columns(first) == ["", "server", "", "ERROR", "", "cannot be served"]
    assert further[-1].startswith(f"{' ' * 14}ValueError: ")


def test_colours_are_printed_on_a_terminal_without_no_color_only(
    attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = attach(output=Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    plain = attach(output=Terminal())

    logging.getLogger(FUNCTION).info(json.dumps(record(level="ERROR")))

    assert "\x1b[31mERROR  \x1b[0m" in coloured.getvalue()
    assert "\x1b[2m" in coloured.getvalue()
    assert re.search(r"\x1b\[[0-9;]*m", plain.getvalue()) is None
