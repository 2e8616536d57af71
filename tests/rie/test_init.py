"""What Lambda's runtime says when a function is not configured, or wrongly."""

from __future__ import annotations

import pytest

from tests.conftest import docker
from tests.rie.conftest import AUTHORIZER, WEBSOCKET, Emulate

ENDPOINT = "AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER"
NOT_OURS = "198.51.100.7"


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
        ("authorizer", ENDPOINT, f"http://{NOT_OURS}"),
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


# The machine that a container is on


def init_phase(endpoint: str) -> tuple[int, str]:
    """The exit status of the authorizer's init phase, in a container of the engine's own bridge network."""
    environ = [f"--env={name}={value}" for name, value in {**AUTHORIZER, ENDPOINT: endpoint}.items()]
    ran = docker(
        "run", "--rm", "--network=bridge", *environ, "--entrypoint=python", "authorizer:dev", "-c", "import authorizer"
    )
    return ran.returncode, ran.stderr


@pytest.fixture
def gateway(images: None) -> str:
    """The address that the machine has in the engine's own bridge network."""
    address = docker("network", "inspect", "--format={{(index .IPAM.Config 0).Gateway}}", "bridge").stdout.strip()
    assert address
    return address


def test_container_takes_keys_in_plain_text_from_the_machine_that_it_is_on(gateway: str) -> None:
    assert init_phase(f"http://{gateway}:4511") == (0, "")


def test_container_takes_keys_in_plain_text_from_no_other_machine(gateway: str) -> None:
    status, error = init_phase(f"http://{NOT_OURS}:4511")

    assert (status, error.splitlines()[-1]) == (
        1,
        f"RuntimeError: environment variable {ENDPOINT} is malformed, http:// is for this machine only: use https://",
    )
