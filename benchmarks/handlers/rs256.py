"""The least that an authorizer must do: verify the signature of an ID token with one known key, and log the decision."""

from __future__ import annotations

import json
import os
from base64 import urlsafe_b64decode
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256

key = RSAPublicNumbers(e=65537, n=int(os.environ["MODULUS"])).public_key()


def handler(event: dict[str, Any], context: object) -> dict[str, str]:
    signing_input, _, signature = event["queryStringParameters"]["idToken"].rpartition(".")
    key.verify(decode(signature), signing_input.encode(), PKCS1v15(), SHA256())
    sub = json.loads(decode(signing_input.partition(".")[2]))["sub"]
    request = event["requestContext"]
    print(json.dumps({"connectionId": request["connectionId"], "requestId": request["requestId"], "sub": sub}))
    return {"sub": sub}


def decode(segment: str) -> bytes:
    return urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
