"""The user pool under attack, and the functions in Lambda's runtime as in tests/container."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator

import pytest
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, RSAKey

from tests.attacks.forgery import Pool
from tests.fixtures.network import Answer, LoopbackServer
from tests.fixtures.tokens import key_set, new_key


def renamed(key: RSAKey, kid: str, **parameters: str) -> RSAKey:
    return RSAKey.import_key({**key.as_dict(private=True), "use": "sig", "alg": "RS256", "kid": kid, **parameters})


@pytest.fixture(scope="session")
def attacker(other_key: RSAKey) -> Iterator[LoopbackServer]:
    """Where an attacker publishes his key, and waits for somebody to ask for it."""
    with LoopbackServer(key_set(other_key)) as server:
        yield server


@pytest.fixture(scope="session")
def pool(signing_key: RSAKey, other_key: RSAKey, attacker: LoopbackServer) -> Pool:
    large = new_key("large3072", 3072)
    with warnings.catch_warnings(action="ignore", category=SecurityWarning):
        weak = new_key("weak", 1024)
    published = {
        "3072": large,
        "4096": new_key("large4096", 4096),
        "long-kid": renamed(large, "k" * 128),
        "short-kid": renamed(large, "k"),
        "path-kid": renamed(large, "../other/key"),
        "encryption": renamed(large, "encryption", use="enc"),
        "rs512": renamed(large, "rs512", alg="RS512"),
        "weak": weak,
        "twice": renamed(large, "twice"),
        "private": renamed(large, "private"),
    }
    return Pool(signing_key, published, other_key, attacker.url)


@pytest.fixture(scope="session")
def published(pool: Pool) -> Iterator[LoopbackServer]:
    """Where the user pool publishes its keys, the ones that verify no ID token included."""
    keys: list[RSAKey | ECKey] = [
        pool.key,
        *pool.published.values(),
        renamed(pool.key, "twice"),
        ECKey.generate_key("P-256", {"kid": "elliptic", "use": "sig", "alg": "ES256"}),
    ]
    jwks = [key.as_dict(private=key.kid == "private") for key in keys]
    secret = OctKey.generate_key(256, {"kid": "symmetric", "use": "sig", "alg": "HS256"}).as_dict(private=True)
    body = json.dumps({"keys": [*jwks, secret]}).encode()
    with LoopbackServer(Answer(headers={"Content-Type": "application/json"}, body=[body])) as server:
        yield server
