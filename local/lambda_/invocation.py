"""The result of invoking a function."""

from __future__ import annotations

from dataclasses import dataclass
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
