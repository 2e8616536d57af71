"""Records in the journal what the gateway does."""

from __future__ import annotations

import time

from local.apigateway.api import Api
from local.apigateway.events import Connection, Event, Handshake
from local.apigateway.gateway import Refusal
from local.journal import Journal
from local.lambda_.invocation import InvocationResult


def record_handshake(journal: Journal, api: Api, connection: Connection, handshake: Handshake) -> None:
    route = api.routes.get("$connect")
    journal.record(
        "handshake",
        connection.id,
        handshake.request_id,
        method="GET",
        path=handshake.target,
        headers=handshake.headers,
        sourceIp=connection.source_ip,
        identitySources=route.authorizer.identity_sources if route and route.authorizer else (),
    )


def record_decision(
    journal: Journal, decision: str | Refusal | None, handshake: Handshake, connection: Connection | None
) -> None:
    """Record the answer to a handshake: its refusal, or the subprotocol of the 101."""
    refusal = decision if isinstance(decision, Refusal) else None
    user = (connection.authorizer or {}).get("principalId") if connection else None
    journal.record(
        "decision",
        connection.id if connection else None,
        handshake.request_id,
        user,
        status=refusal.status if refusal else 101,
        subprotocol=None if refusal else decision,
        body=refusal.body.decode() if refusal else None,
        allowed=refusal is None,
        effect=refusal.effect if refusal else user and "Allow",
        reason=refusal.reason if refusal else None,
    )


def record_refused_invocation(journal: Journal, name: str, event: Event, refused: InvocationResult) -> None:
    """Record an invocation that was refused before it reached the function."""
    context, now = event["requestContext"], time.time()
    journal.record(
        "invocation",
        context["connectionId"],
        context["requestId"],
        function=name,
        purpose="authorizer" if event.get("type") == "REQUEST" else context["routeKey"],
        error=refused.error,
        message=refused.message,
        startedAt=now,
        endedAt=now,
    )


class MessageRecorder:
    """Records a message when it arrives, and its result when its route has answered."""

    def __init__(self, journal: Journal, event: Event, route_key: str | None) -> None:
        self._journal = journal
        context = event["requestContext"]
        self._keys = context["connectionId"], context["requestId"]
        facts = {"routeKey": route_key, "body": event["body"], "messageId": context["messageId"]}
        self._entry = journal.record("message", *self._keys, **facts)

    def finish(self, reply: bytes | None, reason: str | None) -> None:
        """Record the result.

        Args:
            reply: the frame that was sent to the client; None if there was none.
            reason: why the message failed; None if it succeeded.
        """
        if reply is not None:
            sender = "gateway" if reason else "route"
            self._journal.record("frame", *self._keys, **{"body": reply.decode(), "from": sender})
        result = "error" if reason else "ok"
        self._journal.complete(self._entry, result=result, reason=reason, endedAt=time.time())
