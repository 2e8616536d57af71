"""Prints log records to the terminal for `make up`, one line each; writes them to a file for `make demo`."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from local.journal import ConnectionRecord, Entry, Journal
from local.lambda_.log_line import LogLine
from local.paths import LOGS
from local.progress import Progress, format_duration, make_printable

NO_LINE = LogLine("")
Style = Literal["short", "full", "json"]

FUNCTION = "function."  # prefix of the loggers with functions' output
# Members of a function's JSON record that are printed elsewhere in the line, or would make it too long.
NOT_SHOWN = {
    "timestamp",
    "level",
    "message",
    "logger",
    "requestId",
    "connectionId",
    "apiRequestId",
    "routeKey",
    "location",
    "errorType",
    "errorMessage",
    "stackTrace",
    "reason",
    "_aws",
}
WIDTHS = {"connection": 8, "who": 11, "route": 11, "result": 7, "duration": 8}
CONTINUED = " " * 14  # indents the further lines of a record to the column of the connection
FRAME = re.compile(r'\s*File "([^"]+)", line \d+')
LIBRARIES = re.compile(r"^<|/(site|dist)-packages/|/lib/python3[\d.]*/|^/var/(task|lang|runtime)/")
PLAIN = logging.Formatter()  # the formatter of basicConfig would repeat level and name
DIM, RED, GREEN, YELLOW = "2", "31", "32", "33"
COLOURS = {"WARNING": YELLOW, "ERROR": RED, "CRITICAL": RED, "error": RED}


@dataclass
class Row:
    """A line of the terminal, and the further lines of the same record."""

    at: float
    connection: str = ""
    who: str = ""
    route: str = ""
    result: str = ""
    duration: float | None = None
    text: str = ""
    user: str | None = None
    further: Iterable[str] = ()

    def write(self, progress: Progress) -> str:
        """Return the lines as text. A value that is longer than its column is cut, so that columns stay aligned."""
        clock = f"{time.strftime('%H:%M:%S', time.localtime(self.at))}.{int(self.at % 1 * 1000):03d}"
        duration = "" if self.duration is None else format_duration(self.duration)
        values = {"connection": self.connection[: WIDTHS["connection"]], "who": self.who, "route": self.route,
                  "result": self.result, "duration": duration}  # fmt: skip
        columns = {name: fit(make_printable(value), WIDTHS[name]) for name, value in values.items()}
        columns["connection"] = progress.colour(DIM, columns["connection"])
        columns["result"] = progress.colour(choose_colour(self.result), columns["result"])
        text = self.text or (f"user {self.user}" if self.user else "")
        first = "  ".join((progress.colour(DIM, clock), *columns.values(), make_printable(text))).rstrip()
        return "\n".join((first, *(f"{CONTINUED}{make_printable(line)}".rstrip() for line in self.further)))


def fit(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else f"{text[: width - 1]}…"


def choose_colour(result: str) -> str:
    if result.isdecimal() and len(result) == 3:
        return GREEN if result < "400" else RED
    return COLOURS.get(result, "")


class TerminalHandler(logging.Handler):
    """Prints log records and the gateway's decisions above the line of the current step.

    Args:
        progress: prints the lines.
        journal: tells which connection a function's record belongs to.
        style: `short` prints only the application's frames of tracebacks, `full` all; `json` prints each record as JSON.
    """

    def __init__(self, progress: Progress, journal: Journal | None = None, style: Style = "short") -> None:
        super().__init__()
        self.progress = progress
        self.journal = journal
        self.style = style
        if journal:
            journal.listeners.append(self.print_decision)

    def emit(self, record: logging.LogRecord) -> None:
        is_function = record.name.startswith(FUNCTION)
        if self.style == "json":
            self.print_json(self.read_function_record(record) if is_function else read_own_record(record))
        else:
            row = self.build_function_row(record) if is_function else self.build_own_row(record)
            self.progress.say(row.write(self.progress))

    def print_decision(self, entry: Entry, connection: ConnectionRecord | None) -> None:
        """Print a decision of the gateway. Do nothing for an entry that is no decision or has no result yet."""
        row = build_decision_row(entry, connection)
        if row is None:
            return
        if self.style != "json":
            self.progress.say(row.write(self.progress))
            return
        ids = {"connectionId": connection.id if connection else None, "routeKey": row.route}
        milliseconds = None if row.duration is None else round(row.duration * 1000, 1)
        facts = {"message": entry.kind, **ids, "result": row.result, "reason": row.text or None, "sub": row.user}
        request_id = next((key for key in entry.keys if connection is None or key != connection.id), None)
        level = "WARNING" if choose_colour(row.result) == RED else "INFO"
        first = {"timestamp": write_time(row.at), "level": level, "logger": "gateway"}
        self.print_json({**first, **facts, "apiRequestId": request_id, "milliseconds": milliseconds})

    def print_json(self, record: dict[str, Any]) -> None:
        present = {name: value for name, value in record.items() if value is not None}
        self.progress.say(json.dumps(present))

    def build_function_row(self, record: logging.LogRecord) -> Row:
        line = LogLine.parse(record.getMessage())
        connection_id, route = self.find_connection(record, line)
        facts = line.record if is_log_record(line.record) else {}
        row = Row(
            record.created, connection_id, record.name.removeprefix(FUNCTION), str(facts.get("routeKey") or route)
        )
        if facts:
            row.result, row.text = str(facts["level"]), describe(facts)
            trace = facts.get("stackTrace")
            row.further = [
                part for each in (trace if isinstance(trace, list) else []) for part in str(each).splitlines()
            ]
        else:  # the runtime writes a traceback as one line with carriage returns
            level, text = split_level(line)
            row.result = level
            row.text, *further = re.split(r"\r\n?|\n", text.rstrip())
            row.further = further
        row.further = self.shorten_trace(row.further)
        return row

    def build_own_row(self, record: logging.LogRecord) -> Row:
        module = record.name.rpartition(".")[2]
        first, *further = PLAIN.format(record).splitlines() or [""]
        level = record.levelname if record.levelno >= logging.WARNING else ""
        connection_id, route = self.find_connection(record)
        further = self.shorten_trace(further)
        return Row(record.created, connection_id, module, route, result=level, text=first, further=further)

    def shorten_trace(self, lines: Iterable[str]) -> list[str]:
        return [*lines] if self.style == "full" else [*drop_frames_of_libraries([*lines])]

    def find_connection(self, record: logging.LogRecord, line: LogLine = NO_LINE) -> tuple[str, str]:
        """Return the connection id and the route of a record; empty texts if they are unknown."""
        request_id = line.request_id or getattr(record, "request_id", None)
        found = self.journal.find_invocation(request_id) if self.journal and request_id else None
        connection_id, purpose = found or ("", "")
        return line.connection_id or connection_id, "$connect" if purpose == "authorizer" else purpose

    def read_function_record(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return a function's record unchanged, with the function's name and the connection id added."""
        line = LogLine.parse(record.getMessage())
        connection_id, _ = self.find_connection(record, line)
        written = line.record or {"timestamp": write_time(record.created), "message": line.text}
        return {**written, "function": record.name.removeprefix(FUNCTION), "connectionId": connection_id or None}


def build_decision_row(entry: Entry, connection: ConnectionRecord | None) -> Row | None:
    """Return the line of a decision; None for any other entry and for a message without a result."""
    facts = entry.facts
    row = Row(entry.at, connection.id if connection else "", "gateway")
    match entry.kind:
        case "decision":
            row.route, row.result = "$connect", str(facts["status"])
            row.duration = entry.at - connection.handshake.at if connection else None
            row.user, row.text = connection.user_id if connection else None, facts["reason"] or ""
        case "message" if "result" in facts:
            row.at, row.duration = facts["endedAt"], facts["endedAt"] - entry.at
            row.route, row.result, row.text = facts["routeKey"] or "", facts["result"], facts["reason"] or ""
        case "end":
            row.route, row.result = "$disconnect", str(facts["code"])
            row.text = facts["cause"]
        case "management" if facts["status"] >= 400 or facts["method"] == "DELETE":
            caller = str(facts["caller"] or "an unknown caller").rpartition("/")[2]
            row.result, row.text = str(facts["status"]), f"@connections {facts['method']} by {caller}"
        case _:
            return None
    return row


def is_log_record(record: dict[str, Any]) -> bool:
    """Return whether a JSON object was written by the runtime's logging and not printed by the function itself."""
    return "level" in record and bool(record.keys() & {"message", "errorMessage"})


def describe(record: dict[str, Any]) -> str:
    """Return a function's JSON record as `message: reason key=value`."""
    error = ": ".join(str(record[name]) for name in ("errorType", "errorMessage") if record.get(name))
    message = ": ".join(write_value(each) for each in (record.get("message"), record.get("reason"), error) if each)
    if message.startswith("LAMBDA_WARNING"):  # the runtime adds five sentences of advice that apply to AWS only
        message = message.partition(". ")[0]
    hidden = NOT_SHOWN | find_metrics(record)
    extra = " ".join(f"{name}={write_value(value)}" for name, value in record.items() if name not in hidden)
    return " ".join(part for part in (message, extra) if part)


def find_metrics(record: dict[str, Any]) -> set[str]:
    """Return the names of metrics and dimensions in a record in CloudWatch's embedded metric format."""
    try:
        directives = record["_aws"]["CloudWatchMetrics"]
        metrics = {metric["Name"] for each in directives for metric in each["Metrics"]}
        return metrics | {name for each in directives for names in each["Dimensions"] for name in names}
    except (LookupError, TypeError):
        return set()


def split_level(line: LogLine) -> tuple[str, str]:
    """Return level and message of the runtime's text format, `[INFO]`, time, request id and message."""
    parts = line.text.split("\t", 3)
    if line.request_id and len(parts) == 4:
        return parts[0].strip("[]"), parts[3]
    return "", line.text


def drop_frames_of_libraries(lines: list[str]) -> Iterator[str]:
    """Yield the lines of a traceback without the frames of libraries; all lines if no frame is the application's."""
    frames = [found[1] for line in lines if (found := FRAME.match(line))]
    if all(LIBRARIES.search(path) for path in frames):
        yield from lines
        return
    is_dropped = False
    for line in lines:
        if found := FRAME.match(line):
            is_dropped = bool(LIBRARIES.search(found[1]))
        elif not line.startswith("    "):
            is_dropped = False
        if not is_dropped:
            yield line


def read_own_record(record: logging.LogRecord) -> dict[str, Any]:
    error = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
    first = {"timestamp": write_time(record.created), "level": record.levelname, "logger": record.name}
    return {**first, "message": record.getMessage(), "stackTrace": error and error.splitlines()}


def write_time(seconds: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03d}Z"


def write_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def log_to_terminal(progress: Progress, journal: Journal, style: Style) -> None:
    """Send records and decisions to the terminal. JSON goes to standard output, which then has nothing else."""
    handler = TerminalHandler(Progress() if style == "json" else progress, journal, style)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    quiet_libraries()


def log_to_file(name: str) -> None:
    LOGS.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=LOGS / f"{name}.log", filemode="w", level=logging.INFO, format="%(asctime)s %(name)s %(message)s"
    )
    quiet_libraries()


def quiet_libraries() -> None:
    for name in ("botocore", "watchfiles"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.raiseExceptions = False  # a full disk must not print a traceback for each record
