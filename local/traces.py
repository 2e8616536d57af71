"""Records traces of invocations: the segments that the X-Ray SDK sends, and those that the Lambda service would add.

https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html
https://docs.aws.amazon.com/lambda/latest/dg/services-xray.html
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from local.ids import make_span_id
from local.journal import Journal
from local.lambda_.function import Function
from local.lambda_.invocation import Invocation, PendingInvocation

Document = dict[str, Any]


class TraceListener(asyncio.DatagramProtocol):
    """Listens on a UDP port of the loopback interface, as the X-Ray daemon does."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    async def start(self) -> str:
        """Listen; return the address in the form of AWS_XRAY_DAEMON_ADDRESS."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
        host, port = self._transport.get_extra_info("sockname")
        return f"{host}:{port}"

    async def stop(self) -> None:
        self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Record a segment document, which follows a header line. Ignore any other data."""
        _, _, document = data.partition(b"\n")
        try:
            trace_id = json.loads(document)["trace_id"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return
        if isinstance(trace_id, str):
            self.journal.record("trace", trace_id, document=document)


class InvocationRecorder:
    """Records an invocation: when it was queued, when it began, its result, and the segments of the Lambda service."""

    def __init__(self, journal: Journal, function: Function, event: Any, pending: PendingInvocation) -> None:
        self.journal = journal
        self.function = function
        self.pending = pending
        self._queued_at = self._started_at = time.time()
        self._init: tuple[float, float] | None = None
        self._is_settled = False
        event = event if isinstance(event, dict) else {}
        context = event.get("requestContext", {})
        is_authorizer = event.get("type") == "REQUEST"
        self._entry = journal.record(
            "invocation",
            context.get("connectionId"),
            context.get("requestId"),
            pending.request_id,
            pending.trace_id,
            function=function.target,
            purpose="authorizer" if is_authorizer else context.get("routeKey"),
            event=pending.payload,
            startedAt=self._started_at,
        )

    def begin(self, init: tuple[float, float] | None) -> None:
        """Record that an environment begins the invocation.

        Args:
            init: begin and end of the environment's init phase; None if this is not its first invocation.
        """
        self._started_at, self._init = time.time(), init
        self.journal.complete(self._entry, startedAt=self._started_at)

    def settle(self, invocation: Invocation) -> None:
        """Record the first result. Ignore a second one: after a timeout, the killed environment fails it again."""
        if self._is_settled:
            return
        self._is_settled = True
        ended_at = time.time()
        result: dict[str, Any] = {"answer": invocation.document}
        if invocation.error is not None:
            result = {"error": invocation.error, "message": invocation.message}
        self.journal.complete(self._entry, **result, endedAt=ended_at)
        for document in self._build_segments(invocation, ended_at):
            self.journal.record("trace", self.pending.trace_id, document=json.dumps(document).encode())

    def _build_segments(self, invocation: Invocation, ended_at: float) -> list[Document]:
        """Return the segments of the Lambda service and of the function. The SDK's segments are children of the latter."""
        service_id, pending, function = make_span_id(), self.pending, self.function
        both = {"trace_id": pending.trace_id, "name": function.name, "end_time": ended_at}
        fault: Document = {"fault": True} if invocation.error else {}
        service = {
            **both,
            "id": service_id,
            "origin": "AWS::Lambda",
            "start_time": self._queued_at,
            "resource_arn": function.arn,
            "http": {"response": {"status": 200}},
            "aws": {"request_id": pending.request_id},
            **fault,
        }
        steps = [build_subsegment("Invocation", self._started_at, ended_at)]
        annotations: Document = {}
        if self._init and self._init[1] >= self._queued_at:
            steps.insert(0, build_subsegment("Initialization", *self._init))
        elif self._init:  # the environment was started before the invocation, so its init phase is no part of the trace
            annotations = {"annotations": {"init_milliseconds": round((self._init[1] - self._init[0]) * 1000)}}
        if invocation.error:
            exception = {"id": make_span_id(), "type": invocation.error, "message": invocation.message}
            fault["cause"] = {"exceptions": [exception]}
        function_segment = {
            **both,
            "id": pending.span_id,
            "parent_id": service_id,
            "origin": "AWS::Lambda::Function",
            "start_time": min(step["start_time"] for step in steps),
            "aws": {"function_arn": function.arn, "request_id": pending.request_id},
            "subsegments": steps,
            **annotations,
            **fault,
        }
        return [service, function_segment]


def build_subsegment(name: str, start: float, end: float) -> Document:
    return {"id": make_span_id(), "name": name, "start_time": start, "end_time": end}
