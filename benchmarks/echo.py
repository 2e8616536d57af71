"""A function that sends each message back through `@connections`, and does nothing else.

It uses no client library, because the benchmark measures the gateway, not boto3.
"""

from __future__ import annotations

import os
import socket
import time
from functools import cache
from hashlib import sha256
from hmac import digest
from typing import Any, BinaryIO

GATEWAY = os.environ["GATEWAY"]
HOST, _, PORT = GATEWAY.partition(":")
SECRET = os.environ["AWS_SECRET_ACCESS_KEY"]
TOKEN = os.environ["AWS_SESSION_TOKEN"]
SIGNED = "host;x-amz-date;x-amz-security-token"


@cache
def connect() -> tuple[socket.socket, BinaryIO]:
    """Connect at the first message, because the gateway cuts a connection that sends nothing for ten seconds."""
    gateway = socket.create_connection((HOST, int(PORT)))
    return gateway, gateway.makefile("rb")


def handler(event: dict[str, Any], context: object) -> dict[str, int]:
    connection = event["requestContext"]
    gateway, answers = connect()
    gateway.sendall(
        build_post(f"/{connection['stage']}/@connections/{connection['connectionId']}", event["body"].encode())
    )
    status = answers.readline().split()[1]
    if status != b"200":
        raise RuntimeError(f"@connections answered {status.decode()}")
    while answers.readline() != b"\r\n":  # its body is empty
        pass
    return {"statusCode": 200}


def build_post(path: str, body: bytes) -> bytes:
    """Return a POST with this body, signed by Signature Version 4."""
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    scope = (now[:8], "us-east-1", "execute-api", "aws4_request")
    headers = f"host:{GATEWAY}\nx-amz-date:{now}\nx-amz-security-token:{TOKEN}\n"
    encoded = path.replace("@", "%40").replace("=", "%3D")
    canonical = f"POST\n{encoded}\n\n{headers}\n{SIGNED}\n{sha256(body).hexdigest()}"
    to_sign = f"AWS4-HMAC-SHA256\n{now}\n{'/'.join(scope)}\n{sha256(canonical.encode()).hexdigest()}"
    signature = digest(derive_key(*scope), to_sign.encode(), "sha256").hex()
    credential = f"{os.environ['AWS_ACCESS_KEY_ID']}/{'/'.join(scope)}"
    authorization = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={SIGNED}, Signature={signature}"
    head = [
        f"POST {path} HTTP/1.1",
        *headers.splitlines(),
        f"Authorization: {authorization}",
        f"Content-Length: {len(body)}",
        "",
        "",
    ]
    return "\r\n".join(head).encode() + body


@cache
def derive_key(*scope: str) -> bytes:
    """Return the signing key for a scope."""
    key = f"AWS4{SECRET}".encode()
    for part in scope:
        key = digest(key, part.encode(), "sha256")
    return key
