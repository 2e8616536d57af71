"""Records an invocation in the journal, and its trace: the segments that the Lambda service would send to X-Ray.

https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html
https://docs.aws.amazon.com/lambda/latest/dg/services-xray.html
"""

from __future__ import annotations

import json
import time
from typing import Any

from local.ids import make_span_id
from local.journal import Journal
from local.lambda_.function import Function
from local.lambda_.invocation import Invocation, InvocationResult

Document = dict[str, Any]


class InvocationRecorder:
    """Records an invocation: when it was queued, when it began, its result, and the segments of the Lambda service."""

    def __init__(self, journal: Journal, function: Function, event: Any, invocation: Invocation) -> None:
        self.journal = journal
        self.function = function
        self.invocation = invocation
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
            invocation.request_id,
            invocation.trace_id,
            function=function.target,
            purpose="authorizer" if is_authorizer else context.get("routeKey"),
            event=invocation.payload,
            startedAt=self._started_at,
        )

    def begin(self, init: tuple[float, float] | None) -> None:
        """Record that an environment begins the invocation.

        Args:
            init: begin and end of the environment's init phase; None if this is not its first invocation.
        """
        self._started_at, self._init = time.time(), init
        self.journal.complete(self._entry, startedAt=self._started_at)

    def settle(self, result: InvocationResult) -> None:
        """Record the first result. Ignore a second one: after a timeout, the killed environment fails it again."""
        if self._is_settled:
            return
        self._is_settled = True
        ended_at = time.time()
        facts: dict[str, Any] = {"answer": result.document}
        if result.error is not None:
            facts = {"error": result.error, "message": result.message}
        self.journal.complete(self._entry, **facts, endedAt=ended_at)
        for document in self._build_segments(result, ended_at):
            self.journal.record("trace", self.invocation.trace_id, document=json.dumps(document).encode())

    def _build_segments(self, result: InvocationResult, ended_at: float) -> list[Document]:
        """Return the segments of the Lambda service and of the function. The SDK's segments are children of the latter."""
        service_id, invocation, function = make_span_id(), self.invocation, self.function
        both = {"trace_id": invocation.trace_id, "name": function.name, "end_time": ended_at}
        fault: Document = {"fault": True} if result.error else {}
        service = {
            **both,
            "id": service_id,
            "origin": "AWS::Lambda",
            "start_time": self._queued_at,
            "resource_arn": function.arn,
            "http": {"response": {"status": 200}},
            "aws": {"request_id": invocation.request_id},
            **fault,
        }
        steps = [build_subsegment("Invocation", self._started_at, ended_at)]
        annotations: Document = {}
        if self._init and self._init[1] >= self._queued_at:
            steps.insert(0, build_subsegment("Initialization", *self._init))
        elif self._init:  # the environment was started before the invocation, so its init phase is no part of the trace
            annotations = {"annotations": {"init_milliseconds": round((self._init[1] - self._init[0]) * 1000)}}
        if result.error:
            exception = {"id": make_span_id(), "type": result.error, "message": result.message}
            fault["cause"] = {"exceptions": [exception]}
        function_segment = {
            **both,
            "id": invocation.span_id,
            "parent_id": service_id,
            "origin": "AWS::Lambda::Function",
            "start_time": min(step["start_time"] for step in steps),
            "aws": {"function_arn": function.arn, "request_id": invocation.request_id},
            "subsegments": steps,
            **annotations,
            **fault,
        }
        return [service, function_segment]


def build_subsegment(name: str, start: float, end: float) -> Document:
    return {"id": make_span_id(), "name": name, "start_time": start, "end_time": end}
