"""Sends each message back through `@connections`, and does nothing else."""

from __future__ import annotations

import http.client
import os
from typing import Any
from urllib.parse import quote

gateway = http.client.HTTPConnection(os.environ["GATEWAY"])
# The local gateway checks who signs, not the signature.
AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/execute-api/aws4_request, SignedHeaders=host, Signature=0"
)


def handler(event: dict[str, Any], context: object) -> dict[str, int]:
    connection_id = quote(event["requestContext"]["connectionId"])
    path = f"/{event['requestContext']['stage']}/@connections/{connection_id}"
    gateway.request("POST", path, event["body"].encode(), {"Authorization": AUTHORIZATION})
    gateway.getresponse().read()
    return {"statusCode": 200}
