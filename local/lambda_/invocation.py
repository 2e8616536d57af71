"""An invocation of a function, and its result."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Invocation:
    """What came of invoking a function: its answer, or why there is none.

    Attributes:
        error: the error's type, e.g. `KeyError` or `Sandbox.Timedout`; None for an answer.
        message: the error's message.
    """

    answer: Any = None
    error: str | None = None
    message: str = ""

    @property
    def timed_out(self) -> bool:
        return self.error == "Sandbox.Timedout"


@dataclass
class Pending:
    """An invocation that waits for its answer."""

    payload: bytes
    answer: asyncio.Future[Invocation]
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    timer: asyncio.TimerHandle | None = None

    def settle(self, invocation: Invocation) -> None:
        if self.timer:
            self.timer.cancel()
        if not self.answer.done():
            self.answer.set_result(invocation)
