"""An invocation of a function, and its result."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from local.ids import make_span_id, make_trace_id

if TYPE_CHECKING:
    from local.lambda_.recording import InvocationRecorder


@dataclass(frozen=True)
class InvocationResult:
    """The function's answer, or an error.

    Attributes:
        error: the error's type, e.g. `KeyError` or `Sandbox.Timedout`; None for an answer.
        message: the error's message.
        document: the answer as JSON, as the function sent it.
    """

    answer: Any = None
    error: str | None = None
    message: str = ""
    document: bytes = field(default=b"null", repr=False, compare=False)

    @property
    def timed_out(self) -> bool:
        return self.error == "Sandbox.Timedout"


@dataclass
class Invocation:
    """An invocation of a function.

    Attributes:
        span_id: the id of the function's segment in the trace. It is the parent of the segments that the function sends.
        recorder: records the invocation in the journal; None without a journal.
    """

    payload: bytes
    result: asyncio.Future[InvocationResult]
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    timer: asyncio.TimerHandle | None = None
    trace_id: str = field(default_factory=make_trace_id)
    span_id: str = field(default_factory=make_span_id)
    recorder: InvocationRecorder | None = None

    @property
    def trace_header(self) -> str:
        return f"Root={self.trace_id};Parent={self.span_id};Sampled={int(self.recorder is not None)}"

    def settle(self, result: InvocationResult) -> None:
        if self.timer:
            self.timer.cancel()
        if self.recorder:
            self.recorder.settle(result)
        if not self.result.done():
            self.result.set_result(result)
