"""Sends each message back through `@connections`, and does as little else as can be.

No client library: the benchmark measures the gateway, not boto3.
"""

from __future__ import annotations

import os
import socket
from typing import Any
from urllib.parse import quote

HOST, _, PORT = os.environ["GATEWAY"].partition(":")
# The local gateway checks who signs, not the signature.
SCOPE = f"{os.environ['AWS_ACCESS_KEY_ID']}/20260101/us-east-1/execute-api/aws4_request"
REQUEST = f"""POST /%s/@connections/%s HTTP/1.1\r
Host: {HOST}:{PORT}\r
Authorization: AWS4-HMAC-SHA256 Credential={SCOPE}, SignedHeaders=host, Signature=0\r
Content-Length: %d\r
\r
"""

gateway = socket.create_connection((HOST, int(PORT)))
answers = gateway.makefile("rb")


def handler(event: dict[str, Any], context: object) -> dict[str, int]:
    body = event["body"].encode()
    connection_id = quote(event["requestContext"]["connectionId"])
    gateway.sendall((REQUEST % (event["requestContext"]["stage"], connection_id, len(body))).encode() + body)
    status = answers.readline().split()[1]
    if status != b"200":
        raise RuntimeError(f"@connections answered {status.decode()}")
    while answers.readline() != b"\r\n":  # its body is empty
        pass
    return {"statusCode": 200}
