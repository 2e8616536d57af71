"""Lambda's runtime answers with an error if a variable of a function is missing or malformed."""

from __future__ import annotations

import pytest

from tests.fixtures.emulator import WEBSOCKET, Emulate
from tests.fixtures.functions import AUTHORIZER
from tests.fixtures.tokens import JWKS_ENDPOINT


@pytest.mark.parametrize(
    ("function", "missing"),
    [*(("authorizer", name) for name in AUTHORIZER), *(("websocket", name) for name in WEBSOCKET)],
)
def test_missing_variable_fails_the_init_phase_and_is_named(emulate: Emulate, function: str, missing: str) -> None:
    others = {name: value for name, value in (AUTHORIZER | WEBSOCKET).items() if name != missing}
    with emulate(function, others) as emulator:
        status, answer = emulator.invoke({})

    assert (status, answer["errorMessage"]) == (502, f"environment variable {missing} is required")


@pytest.mark.parametrize(
    ("function", "name", "value"),
    [
        ("authorizer", "ALLOWED_ORIGINS", "https://app.example.com/"),
        ("authorizer", "CREDENTIAL_MODE", "header"),
        ("authorizer", JWKS_ENDPOINT, "http://198.51.100.7"),
        ("websocket", "MAX_CONNECTIONS_PER_USER", "many"),
    ],
)
def test_malformed_variable_fails_the_init_phase_and_is_named(
    emulate: Emulate, function: str, name: str, value: str
) -> None:
    with emulate(function, AUTHORIZER | WEBSOCKET | {name: value}) as emulator:
        status, answer = emulator.invoke({})

    assert (status, answer["errorType"]) == (502, "RuntimeError")
    assert answer["errorMessage"].startswith(f"environment variable {name} is malformed, ")
