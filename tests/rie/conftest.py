"""The functions in Lambda's own runtime, as plain processes and in the built images, behind the real emulator."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import urllib3
from joserfc.jwk import RSAKey

from local.aws.iam import ADMINISTRATOR
from local.aws.ministack import LocalAws
from tests.conftest import (
    APP_CLIENT_ID,
    EXECUTION_ENVIRONMENT,
    ROOT,
    USER_POOL_ID,
    Answer,
    LoopbackServer,
    Request,
    docker,
    free_port,
    key_set,
)

RIE = ROOT / ".local" / "bin" / "aws-lambda-rie"
INVOCATIONS = "/2015-03-31/functions/function/invocations"
PATIENCE_SECONDS = 40.0  # more than each function's timeout: a caller who gives up crashes the emulator
# As in the stack.
TIMEOUTS = {"authorizer": 10, "websocket": 29}
SETTINGS = {
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
    "AWS_LAMBDA_LOG_FORMAT": "JSON",
    "AWS_LAMBDA_LOG_LEVEL": "INFO",
}
AUTHORIZER = {"USER_POOL_ID": USER_POOL_ID, "APP_CLIENT_ID": APP_CLIENT_ID}
WEBSOCKET = {"CONNECTION_TABLE_NAME": "connections", "CALLBACK_URL": "https://api.invalid/prod"}

Log = Callable[[], str]
Run = Callable[[str, Sequence[str], dict[str, str]], AbstractContextManager[Log]]
Emulate = Callable[[str, dict[str, str]], AbstractContextManager["Emulator"]]


class Invocation(NamedTuple):
    status: int
    answer: Any


class Emulator:
    """A function behind the emulator; a second request before the answer to the first would crash it."""

    def __init__(self, url: str, log: Log) -> None:
        self.url = url
        self.log = log

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                urllib3.request("GET", self.url, retries=False, timeout=1.0)
            except urllib3.exceptions.HTTPError:
                assert time.monotonic() < deadline, self.log()
                time.sleep(0.02)
            else:
                return

    def invoke(self, event: object) -> Invocation:
        response = self.post(event)
        return Invocation(response.status, response.json())

    def post(self, event: object) -> urllib3.BaseHTTPResponse:
        """For an answer that may be no JSON."""
        body = json.dumps(event)  # in ASCII: half a surrogate pair can be told too
        return urllib3.request("POST", f"{self.url}{INVOCATIONS}", body=body, retries=False, timeout=PATIENCE_SECONDS)

    def json_log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def records(self, message: str, *, at_least: int = 1, **facts: object) -> list[dict[str, Any]]:
        """The JSON log records with this message and these facts; it waits until there are so many."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            found = [record for record in self.json_log() if {"message": message, **facts}.items() <= record.items()]
            if len(found) >= at_least:
                return found
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)


@contextmanager
def process(function: str, emulator: Sequence[str], environ: dict[str, str], *, log: Path) -> Iterator[Log]:
    """Runs the function with its locked requirements, after the arguments of the emulator if it gets any."""
    python = ROOT / ".local" / "venvs" / function / "bin" / "python"
    for executable in (RIE, python):
        assert executable.exists(), f"{executable} is missing, run `make setup`"
    task_root = ROOT / "images" / function
    prefix = [str(RIE), *emulator] if emulator else []
    with log.open("wb") as output:
        running = subprocess.Popen(
            [*prefix, str(python), "-m", "awslambdaric", f"{function}.handler"],
            cwd=task_root,
            env={"LAMBDA_TASK_ROOT": str(task_root), "PYTHONDONTWRITEBYTECODE": "1", **environ},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield log.read_text
        finally:
            running.terminate()
            running.wait(PATIENCE_SECONDS)


@contextmanager
def container(function: str, emulator: Sequence[str], environ: dict[str, str]) -> Iterator[Log]:
    """Runs the image as shipped, or the one with the emulator; like Lambda it has no writable place but /tmp."""
    restrictions = ["--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    variables = [f"--env={name}={value}" for name, value in environ.items()]
    command = [f"{function}:dev"]
    if emulator:
        runtime = ["python", "-m", "awslambdaric", f"{function}.handler"]
        command = ["--entrypoint=aws-lambda-rie", f"{function}:rie", *emulator, *runtime]
    # The servers of the tests listen on the host's loopback, and on nothing else.
    started = docker("run", "--detach", "--network=host", *restrictions, *variables, *command)
    assert started.returncode == 0, started.stderr
    identity = started.stdout.strip()

    def log() -> str:
        written = docker("logs", identity)
        return written.stdout + written.stderr

    try:
        yield log
    finally:
        docker("rm", "--force", identity)


@pytest.fixture(scope="session", params=["process", "image"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a function in Lambda's runtime, behind the emulator if that gets arguments."""
    if request.param == "image":
        request.getfixturevalue("images")
        return container

    def with_log(function: str, emulator: Sequence[str], environ: dict[str, str]) -> AbstractContextManager[Log]:
        return process(function, emulator, environ, log=tmp_path_factory.mktemp(function) / "log")

    return with_log


@pytest.fixture(scope="session")
def emulate(run: Run) -> Emulate:
    """Runs a function behind the emulator, in an environment of exactly these variables and Lambda's own."""

    @contextmanager
    def emulated(function: str, environ: dict[str, str]) -> Iterator[Emulator]:
        invocations, runtime_api = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        arguments = [f"--runtime-interface-emulator-address={invocations}", f"--runtime-api-address={runtime_api}"]
        timeout = {"AWS_LAMBDA_FUNCTION_TIMEOUT": str(TIMEOUTS[function])}
        with run(function, arguments, EXECUTION_ENVIRONMENT | SETTINGS | timeout | environ) as log:
            emulator = Emulator(f"http://{invocations}", log)
            emulator.wait_until_ready()
            yield emulator

    return emulated


@pytest.fixture(scope="session")
def jwks(signing_key: RSAKey) -> Iterator[LoopbackServer]:
    """Where the user pool publishes its signing key."""
    with LoopbackServer(key_set(signing_key)) as server:
        yield server


class FakeAws(LoopbackServer):
    """DynamoDB, which agrees to everything, and @connections, which knows who is gone."""

    def __init__(self) -> None:
        super().__init__(Answer(headers={"Content-Type": "application/x-amz-json-1.0"}, body=[b"{}"]))
        self.gone: set[str] = set()

    def respond(self, request: Request) -> Answer:
        if request.path.rpartition("/@connections/")[2] in self.gone:
            return Answer(410, headers={"x-amzn-ErrorType": "GoneException"})
        return self.answer


@pytest.fixture(scope="session")
def aws() -> Iterator[FakeAws]:
    with FakeAws() as server:
        yield server


@pytest.fixture(scope="session")
def authorizer(emulate: Emulate, jwks: LoopbackServer) -> Iterator[Emulator]:
    with emulate("authorizer", {**AUTHORIZER, "AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER": jwks.url}) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def strict_authorizer(emulate: Emulate, jwks: LoopbackServer) -> Iterator[Emulator]:
    """With everything asked for that a deployment can ask for."""
    options = {
        "AWS_LAMBDA_LOG_LEVEL": "DEBUG",
        "CREDENTIAL_MODE": "subprotocol",
        "ALLOWED_ORIGINS": "https://app.example.com http://localhost:5173",
        "REQUIRED_GROUP": "members",
        "CLOCK_SKEW_SECONDS": "0",
        "AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER": jwks.url,
    }
    with emulate("authorizer", AUTHORIZER | options) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def websocket(emulate: Emulate, aws: FakeAws) -> Iterator[Emulator]:
    endpoints = {
        "AWS_ENDPOINT_URL_DYNAMODB": aws.url,
        "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": f"{aws.url}/prod",
    }
    with emulate("websocket", WEBSOCKET | endpoints) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def limited_websocket(emulate: Emulate, database: LocalAws) -> Iterator[Emulator]:
    """With two slots for each user, in a real DynamoDB."""
    limits = {
        "MAX_CONNECTIONS_PER_USER": "2",
        "USER_TABLE_NAME": "users",
        "AWS_ENDPOINT_URL_DYNAMODB": database.url,
        "AWS_ACCESS_KEY_ID": ADMINISTRATOR,
        "AWS_SECRET_ACCESS_KEY": ADMINISTRATOR,
    }
    with emulate("websocket", WEBSOCKET | limits) as emulator:
        yield emulator
