"""What Lambda's runtime says when a function is not configured."""

from __future__ import annotations

import pytest

from tests.rie.conftest import AUTHORIZER, WEBSOCKET, Emulate


@pytest.mark.parametrize(
    ("function", "missing"),
    [*(("authorizer", name) for name in AUTHORIZER), *(("websocket", name) for name in WEBSOCKET)],
)
def test_missing_variable_fails_the_init_phase_and_is_named(emulate: Emulate, function: str, missing: str) -> None:
    others = {name: value for name, value in (AUTHORIZER | WEBSOCKET).items() if name != missing}
    with emulate(function, others) as emulator:
        status, answer = emulator.invoke({})

    assert (status, answer["errorMessage"]) == (502, f"environment variable {missing} is required")
