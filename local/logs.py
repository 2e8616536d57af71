"""Where log records go: `make up` prints them, short; `make demo` keeps them in a file."""

from __future__ import annotations

import json
import logging
from typing import Any

from local.paths import LOGS
from local.progress import Progress, printable

FUNCTION = "function."  # prefix of the loggers that have what functions write
# Of a function's JSON record: what its line has elsewhere, or what would make it long.
NOT_SHOWN = {
    "timestamp",
    "level",
    "message",
    "logger",
    "requestId",
    "location",
    "errorType",
    "errorMessage",
    "stackTrace",
}


class TerminalHandler(logging.Handler):
    """Prints records among the steps."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self.progress.say(self.format(record))


class TerminalFormatter(logging.Formatter):
    """Formats a record as lines that begin with the name of a function, or of a module."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        lines = shorten(text) if record.name.startswith(FUNCTION) else None
        name = record.name.rpartition(".")[2]
        return "\n".join(f"  {name} | {printable(line)}" for line in lines or text.splitlines() or [""])


def shorten(line: str) -> list[str] | None:
    """Return a function's JSON record as `LEVEL message key=value` and the lines of its stack trace; None for other text."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or "level" not in record or not record.keys() & {"message", "errorMessage"}:
        return None
    error = ": ".join(str(record[name]) for name in ("errorType", "errorMessage") if record.get(name))
    message = ": ".join(write_value(each) for each in (record.get("message"), error) if each)
    if message.startswith("LAMBDA_WARNING"):  # the runtime's, with five sentences of advice that concern AWS only
        message = message.partition(". ")[0]
    extra = " ".join(f"{name}={write_value(value)}" for name, value in record.items() if name not in NOT_SHOWN)
    trace = record.get("stackTrace")
    return [
        " ".join(part for part in (str(record["level"]), message, extra) if part),
        *(line for each in (trace if isinstance(trace, list) else []) for line in str(each).splitlines()),
    ]


def write_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def log_to_terminal(progress: Progress) -> None:
    handler = TerminalHandler(progress)
    handler.setFormatter(TerminalFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    quieten()


def log_to_file(name: str) -> None:
    LOGS.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=LOGS / f"{name}.log", filemode="w", level=logging.INFO, format="%(asctime)s %(name)s %(message)s"
    )
    quieten()


def quieten() -> None:
    for name in ("botocore", "watchfiles"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.raiseExceptions = False  # a full disk must not print a traceback for each record
