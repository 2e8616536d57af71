"""Parses a line of a function's log, which the runtime or the function itself has written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Self

REQUEST_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class LogLine:
    """A line of a log, with the ids in it.

    Attributes:
        record: the JSON object; empty if the line is text.
        request_id: Lambda's request id; None if the line does not contain it.
    """

    text: str
    record: dict[str, Any] = field(default_factory=dict)
    request_id: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        record: Any = {}
        request_id: Any = None
        if text.startswith("{"):
            try:
                record = json.loads(text)
            except (ValueError, RecursionError):
                record = {}
            request_id = record.get("requestId")
        elif text.startswith("["):  # level, time, request id and message, with tabs between them
            request_id = next(iter(text.split("\t", 3)[2:3]), None)
        is_id = isinstance(request_id, str) and REQUEST_ID.fullmatch(request_id)
        return cls(text, record, request_id if is_id else None)

    @property
    def connection_id(self) -> str | None:
        value = self.record.get("connectionId")
        return value if isinstance(value, str) else None
