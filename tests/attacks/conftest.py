"""Publish the keys of a user pool, and an attacker's key on another server."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator

import pytest
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, RSAKey

from tests.attacks.forgery import Pool
from tests.fixtures.network import Answer, LoopbackServer
from tests.fixtures.tokens import build_key_set, generate_key


def rename_key(key: RSAKey, kid: str, **parameters: str) -> RSAKey:
    return RSAKey.import_key({**key.as_dict(private=True), "use": "sig", "alg": "RS256", "kid": kid, **parameters})


@pytest.fixture(scope="session")
def attacker(other_key: RSAKey) -> Iterator[LoopbackServer]:
    """Publish the attacker's key, and record requests for it."""
    with LoopbackServer(build_key_set(other_key)) as server:
        yield server


@pytest.fixture(scope="session")
def pool(signing_key: RSAKey, other_key: RSAKey, attacker: LoopbackServer) -> Pool:
    """Generate the keys with which forgeries are signed."""
    large = generate_key("large3072", 3072)
    with warnings.catch_warnings(action="ignore", category=SecurityWarning):
        weak = generate_key("weak", 1024)
    keys = {
        "signing": signing_key,
        "attacker": other_key,
        "3072": large,
        "4096": generate_key("large4096", 4096),
        "long-kid": rename_key(large, "k" * 128),
        "short-kid": rename_key(large, "k"),
        "path-kid": rename_key(large, "../other/key"),
        "encryption": rename_key(large, "encryption", use="enc"),
        "rs512": rename_key(large, "rs512", alg="RS512"),
        "weak": weak,
        "twice": rename_key(large, "twice"),
        "private": rename_key(large, "private"),
    }
    return Pool(keys, attacker.url)


@pytest.fixture(scope="session")
def published(pool: Pool) -> Iterator[LoopbackServer]:
    """Publish the user pool's keys, and keys that must not verify an ID token."""
    keys: list[RSAKey | ECKey] = [
        *[key for name, key in pool.keys.items() if name != "attacker"],
        rename_key(pool.keys["signing"], "twice"),
        ECKey.generate_key("P-256", {"kid": "elliptic", "use": "sig", "alg": "ES256"}),
    ]
    jwks = [key.as_dict(private=key.kid == "private") for key in keys]
    secret = OctKey.generate_key(256, {"kid": "symmetric", "use": "sig", "alg": "HS256"}).as_dict(private=True)
    body = json.dumps({"keys": [*jwks, secret]}).encode()
    with LoopbackServer(Answer(headers={"Content-Type": "application/json"}, body=[body])) as server:
        yield server
