"""What only the built images can show."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import docker
from tests.rie.conftest import AUTHORIZER, WEBSOCKET, Emulator

pytestmark = [
    pytest.mark.usefixtures("images"),
    pytest.mark.parametrize("function", ["authorizer", "websocket"]),
]


def python_in(image: str, code: str) -> str:
    ran = docker("run", "--rm", "--network=none", "--entrypoint=python", image, "-c", code)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_function_runs_as_nobody(function: str) -> None:
    assert python_in(f"{function}:dev", "import os; print(os.getuid(), os.getgid())") == "65534 65534"


def test_function_cannot_change_its_own_code(function: str) -> None:
    code = """
import os, sys
print([path for path in [os.getcwd(), *sys.path] if os.path.exists(path) and os.access(path, os.W_OK)])
"""
    assert python_in(f"{function}:dev", code) == "[]"


def test_function_finds_its_code_compiled(function: str) -> None:
    """A read-only image could never keep what Python compiles at a cold start."""
    code = f"""
import pathlib
from importlib.util import cache_from_source
sources = set(pathlib.Path("/var/task").rglob("*.py"))
assert pathlib.Path("/var/task/{function}.py") in sources
print([str(path) for path in sources if not pathlib.Path(cache_from_source(path)).exists()])
"""
    assert python_in(f"{function}:dev", code) == "[]"


def test_emulator_is_not_shipped(function: str) -> None:
    code = "import shutil; print(shutil.which('aws-lambda-rie'))"

    assert python_in(f"{function}:dev", code) == "None"
    assert python_in(f"{function}:rie", code) == "/usr/local/bin/aws-lambda-rie"


@pytest.fixture
def published(function: str) -> Iterator[Emulator]:
    """The image with the emulator as its README starts it, but with no place to write to, not even /tmp."""
    variables = {"AWS_DEFAULT_REGION": "us-east-1", **AUTHORIZER, **WEBSOCKET}
    settings = ["--read-only", "--publish=127.0.0.1::8080", *[f"--env={n}={value}" for n, value in variables.items()]]
    started = docker("run", "--detach", *settings, f"{function}:rie")
    assert started.returncode == 0, started.stderr
    container = started.stdout.strip()
    try:
        address = docker("port", container, "8080").stdout.strip()
        emulator = Emulator(f"http://{address}", lambda: docker("logs", container).stderr)
        emulator.wait_until_ready()
        yield emulator
    finally:
        docker("rm", "--force", container)


def test_image_serves_with_nothing_writable_at_all(function: str, published: Emulator) -> None:
    connect_without_token_or_authorizer = {
        "methodArn": "arn:aws:execute-api:us-east-1:123456789012:abcdef123/prod/$connect",
        "requestContext": {"routeKey": "$connect", "connectionId": "L0SM9cOFvHcCIhw="},
    }
    sign_of_life = {"authorizer": {"principalId": "anonymous"}, "websocket": {"errorType": "KeyError"}}

    _, answer = published.invoke(connect_without_token_or_authorizer)

    assert sign_of_life[function].items() <= answer.items()
