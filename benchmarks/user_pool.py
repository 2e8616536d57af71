"""A stand-in for the user pool. It signs ID tokens as Cognito does, and has the keys to verify them."""

from __future__ import annotations

import json
import time
import uuid
from base64 import urlsafe_b64encode

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256

USER_POOL_ID = "us-east-1_Example01"
APP_CLIENT_ID = "1example23456789"
SUB = "11112222-3333-4444-5555-666677778888"
ISSUER = f"https://cognito-idp.us-east-1.amazonaws.com/{USER_POOL_ID}"
KID = "signing1example="
DAY_SECONDS = 24 * 3600  # longer than any run


class UserPool:
    """A user pool with one RSA key, which is new in each run."""

    def __init__(self) -> None:
        self._key = generate_private_key(65537, 2048)

    @property
    def modulus(self) -> int:
        return self._key.public_key().public_numbers().n

    def build_jwks(self) -> bytes:
        modulus = base64url(self.modulus.to_bytes(256, "big"))
        key = {"alg": "RS256", "e": "AQAB", "kid": KID, "kty": "RSA", "n": modulus, "use": "sig"}
        return json.dumps({"keys": [key]}).encode()

    def sign_id_token(self) -> str:
        claims = cognito_claims(lifetime_seconds=DAY_SECONDS)
        parts = (json.dumps(part).encode() for part in ({"kid": KID, "alg": "RS256"}, claims))
        signing_input = ".".join(map(base64url, parts))
        return f"{signing_input}.{base64url(self._key.sign(signing_input.encode(), PKCS1v15(), SHA256()))}"


def cognito_claims(*, lifetime_seconds: int = 3600) -> dict[str, object]:
    """Return the claims of an ID token as Cognito issues it now."""
    now = int(time.time())
    return {
        "sub": SUB,
        "email_verified": True,
        "iss": ISSUER,
        "cognito:username": SUB,
        "origin_jti": str(uuid.uuid4()),
        "aud": APP_CLIENT_ID,
        "event_id": str(uuid.uuid4()),
        "token_use": "id",
        "auth_time": now,
        "exp": now + lifetime_seconds,
        "iat": now,
        "jti": str(uuid.uuid4()),
        "email": "jane@example.com",
    }


def base64url(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode()
