"""Calls of `@connections`: a connection that is closing, wrong signatures, and request ids."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote
from uuid import UUID

import pytest
from botocore.credentials import Credentials

from local.aws.iam import ADMINISTRATOR
from local.ids import make_id
from tests.fixtures.gateway import ADMINISTRATOR_KEYS, HANDSHAKE, Dial, Gateway, request


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_deleted_connection_is_gone_before_its_client_has_answered(
    gateway: Gateway, dial: Dial, method: str
) -> None:
    client = await dial(gateway.port, HANDSHAKE)
    await client.read_head()
    connection_id = (await gateway.functions.wait_for_event("$connect"))["requestContext"]["connectionId"]

    await asyncio.to_thread(gateway.management.delete_connection, ConnectionId=connection_id)

    status, *_ = await request(dial, gateway, f"{method} /prod/@connections/{connection_id}", caller=ADMINISTRATOR_KEYS)
    assert status == 410


async def test_call_with_a_wrong_signature_is_forbidden(gateway: Gateway, dial: Dial) -> None:
    """With a message in lower case, https://github.com/agilord/aws_client/issues/440."""
    _, connection_id = await gateway.connect_with_id()
    wrong = Credentials(ADMINISTRATOR, "wrong")

    status, headers, body = await request(
        dial, gateway, f"POST /prod/@connections/{connection_id}", body=b"hello", caller=wrong
    )

    assert (status, headers["x-amzn-errortype"]) == (403, "InvalidSignatureException")
    message = json.loads(body)["message"]
    assert message.startswith("The request signature we calculated does not match the signature you provided.")
    assert f"\n'POST\n/prod/%40connections/{quote(connection_id)}\n" in message


async def test_every_answer_has_a_request_id_of_its_own(gateway: Gateway, dial: Dial) -> None:
    _, connection_id = await gateway.connect_with_id()
    path = f"/prod/@connections/{connection_id}"
    calls = [
        (f"GET {path}", 403, None),
        (f"PUT {path}", 403, ADMINISTRATOR_KEYS),
        ("GET /dev", 403, ADMINISTRATOR_KEYS),
        ("GET /prod", 426, ADMINISTRATOR_KEYS),
        (f"GET {path}x", 400, ADMINISTRATOR_KEYS),
        (f"GET /prod/@connections/{make_id()}", 410, ADMINISTRATOR_KEYS),
        (f"GET {path}", 200, ADMINISTRATOR_KEYS),
        (f"POST {path}", 200, ADMINISTRATOR_KEYS),
        (f"DELETE {path}", 204, ADMINISTRATOR_KEYS),
        (f"POST {path}", 410, ADMINISTRATOR_KEYS),
    ]

    answers = [await request(dial, gateway, line, caller=caller) for line, _, caller in calls]

    assert [status for status, *_ in answers] == [status for _, status, _ in calls]
    assert len({UUID(headers["x-amzn-requestid"]) for _, headers, _ in answers}) == len(calls)
