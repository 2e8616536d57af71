"""What the tests share: cold starts, really signed tokens, events, servers on loopback, the built images."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple, NoReturn, Protocol, Self

import pytest
import pytest_asyncio
from botocore.stub import Stubber
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.jwk import RSAKey

from benchmarks import user_pool
from local.aws.ministack import LocalAws

ROOT = Path(__file__).resolve().parent.parent
USER_POOL_ID, APP_CLIENT_ID, SUB, ISSUER = (
    user_pool.USER_POOL_ID,
    user_pool.APP_CLIENT_ID,
    user_pool.SUB,
    user_pool.ISSUER,
)
cognito_claims, base64url = user_pool.cognito_claims, user_pool.base64url
CONNECTION_ID = "L0SM9cOFvHcCIhw="
JWKS_PATH = f"/{USER_POOL_ID}/.well-known/jwks.json"
JWKS_ENDPOINT = "AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER"  # the variable that moves the download of keys
AUTHORIZER = {"USER_POOL_ID": USER_POOL_ID, "APP_CLIENT_ID": APP_CLIENT_ID}  # the variables that it must have
CALLBACK_URL = "https://abcdef123.execute-api.us-east-1.amazonaws.com/prod"
METHOD_ARN = "arn:aws:execute-api:us-east-1:123456789012:abcdef123/prod/$connect"
NOW = 1_700_000_000  # in the websocket function under test
# What Lambda itself sets in every function, with the keys of nobody.
EXECUTION_ENVIRONMENT = {
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "example",
    "AWS_CONFIG_FILE": os.devnull,
}
OUR_VARIABLES = {
    "USER_POOL_ID",
    "APP_CLIENT_ID",
    "CREDENTIAL_MODE",
    "ALLOWED_ORIGINS",
    "ALLOW_MISSING_ORIGIN",
    "REQUIRED_GROUP",
    "CLOCK_SKEW_SECONDS",
    "CONNECTION_TABLE_NAME",
    "USER_TABLE_NAME",
    "CALLBACK_URL",
    "MAX_MESSAGE_BYTES",
    "MAX_CONNECTIONS_PER_USER",
}

Event = dict[str, Any]
EventFactory = Callable[..., Event]
Authorize = Callable[[object], dict[str, Any]]
Decide = Callable[[Event], str]
Refusal = Callable[[object], str]


class ColdStart(Protocol):
    def __call__(self, name: str, **environ: str) -> ModuleType: ...


class Sign(Protocol):
    def __call__(self, *, key: RSAKey = ..., header: Mapping[str, object] = ..., **claims: object) -> str: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-containers",
        action="store_true",
        help="fail, instead of skipping, the tests that need a Docker engine when there is none",
    )
    parser.addoption(
        "--require-browser",
        action="store_true",
        help="fail, instead of skipping, the tests of the page when there is no Chromium",
    )


def pytest_configure() -> None:
    """Runs before anything imports aws_cdk, whose Node process keeps the environment that it starts in."""
    os.environ["CDK_VALIDATION"] = "false"  # `cdk synth` validates; here it would only cost seconds
    importlib.import_module("infra")  # silences jsii


def is_loopback(host: object) -> bool:
    return host in {"localhost", "127.0.0.1", "::1", None}


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches further than this machine: other names do not resolve, other addresses refuse."""
    resolve, connect = socket.getaddrinfo, socket.socket.connect

    def resolve_loopback(host: str | None, *arguments: Any, **options: Any) -> Any:
        if not is_loopback(host):
            raise socket.gaierror(f"tests have no network, {host} was asked for")
        return resolve(host, *arguments, **options)

    def connect_loopback(self: socket.socket, address: Any) -> None:
        if self.family in {socket.AF_INET, socket.AF_INET6} and not is_loopback(address[0]):
            raise ConnectionRefusedError(f"tests have no network, {address[0]} was called")
        connect(self, address)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_loopback)
    monkeypatch.setattr(socket.socket, "connect", connect_loopback)


@pytest.fixture(scope="session")
def xray() -> Iterator[None]:
    """Closes what the X-Ray SDK opens as it is imported and never closes, of which Python would complain in the end."""
    yield
    importlib.import_module("aws_xray_sdk.core").xray_recorder.emitter._socket.close()


@pytest.fixture
def subsegments(xray: None, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Makes this process's X-Ray SDK what it is in Lambda, and collects the documents that it would send."""
    recorder = importlib.import_module("aws_xray_sdk.core").xray_recorder
    launcher = importlib.import_module("aws_xray_sdk.core.lambda_launcher")
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(recorder, "context", launcher.LambdaContext())
    monkeypatch.setattr(recorder, "streaming_threshold", 0)
    monkeypatch.setattr(recorder.emitter, "send_entity", lambda entity: sent.append(entity.to_dict()))
    return sent


def import_function(name: str, monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str]) -> ModuleType:
    """Run the init phase of images/<name>/<name>.py as a new execution environment with these variables does."""
    for variable in [*os.environ]:
        if variable.startswith(("AWS_", "LAMBDA_", "_X_AMZN_")) or variable in OUR_VARIABLES:
            monkeypatch.delenv(variable)
    task_root = ROOT / "images" / name
    for variable, value in {**EXECUTION_ENVIRONMENT, "LAMBDA_TASK_ROOT": str(task_root), **environ}.items():
        monkeypatch.setenv(variable, value)
    spec = importlib.util.spec_from_file_location(name, task_root / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cold_start(xray: None, monkeypatch: pytest.MonkeyPatch) -> ColdStart:
    return lambda name, **environ: import_function(name, monkeypatch, environ)


def new_key(kid: str, bits: int = 2048) -> RSAKey:
    return RSAKey.generate_key(bits, parameters={"kid": kid, "alg": "RS256", "use": "sig"})


@pytest.fixture(scope="session")
def signing_key() -> RSAKey:
    """The user pool's own."""
    return new_key("signing1example=")


@pytest.fixture(scope="session")
def other_key() -> RSAKey:
    """As good a key, but not the one the user pool publishes, unless a test says so."""
    return new_key("other2example=")


class Clock:
    """Stands still unless told otherwise."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def rs256(key: RSAKey, header: str, payload: str) -> str:
    """A compact JWS with a true signature over whatever these are; not by the library that verifies it."""
    assert key.private_key is not None
    signing_input = f"{base64url(header.encode())}.{base64url(payload.encode())}"
    return f"{signing_input}.{base64url(key.private_key.sign(signing_input.encode(), PKCS1v15(), SHA256()))}"


@pytest.fixture(scope="session")
def sign(signing_key: RSAKey) -> Sign:
    """Signs an ID token as Cognito makes them, but for the given claims and header parameters; None drops one."""

    def signed(*, key: RSAKey = signing_key, header: Mapping[str, object] = {}, **claims: object) -> str:
        return rs256(key, json_with(header, {"kid": key.kid, "alg": "RS256"}), json_with(claims, cognito_claims()))

    return signed


def json_with(changes: Mapping[str, object], members: Mapping[str, object]) -> str:
    return json.dumps({name: value for name, value in {**members, **changes}.items() if value is not None})


def load_event(name: str, **changes: object) -> Event:
    """The example event with members replaced, at its top or else in its requestContext; None drops one."""
    event: Event = json.loads((ROOT / "tests" / "events" / f"{name}.json").read_text())
    for member, value in changes.items():
        members = event if member in event else event["requestContext"]
        members[member] = value
        if value is None:
            del members[member]
    return event


@pytest.fixture(scope="session")
def authorizer_event() -> EventFactory:
    return partial(load_event, "authorizer")


@pytest.fixture(scope="session")
def connect_event() -> EventFactory:
    return partial(load_event, "connect")


@pytest.fixture(scope="session")
def message_event() -> EventFactory:
    return partial(load_event, "default")


@pytest.fixture(scope="session")
def disconnect_event() -> EventFactory:
    return partial(load_event, "disconnect")


def with_headers(event: Event, *lines: tuple[str, str]) -> Event:
    """The event of a client that sends these header lines too, as API Gateway has them: the last of a name wins."""
    headers, multi_value_headers = dict(event["headers"]), dict(event["multiValueHeaders"])
    for name, value in lines:
        headers[name] = value
        multi_value_headers[name] = [*multi_value_headers.get(name, []), value]
    return event | {"headers": headers, "multiValueHeaders": multi_value_headers}


class Request(NamedTuple):
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Answer(NamedTuple):
    status: int = 200
    body: Iterable[bytes] = ()
    headers: Mapping[str, str] = {}


class LoopbackServer(ThreadingHTTPServer):
    """A real HTTP server on a free port that records the requests and gives `answer`, until that is replaced."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), LoopbackHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.answer = answer
        self.requests: list[Request] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def respond(self, request: Request) -> Answer:
        return self.answer

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class LoopbackHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LoopbackServer

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, self.path, dict(self.headers), body)
        self.server.requests.append(request)
        answer = self.server.respond(request)
        try:
            self.send_response(answer.status)
            for name, value in {"Connection": "close", **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            for chunk in answer.body:
                self.wfile.write(chunk)
        except ConnectionError:  # the client has had enough, which may be what a test is about
            self.close_connection = True

    def do_POST(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.do_GET()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Tests look at `requests`."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def key_set(*keys: RSAKey) -> Answer:
    jwks = {"keys": [key.as_dict(private=False) for key in keys]}
    return Answer(headers={"Content-Type": "application/json"}, body=[json.dumps(jwks).encode()])


@pytest.fixture
def jwks(signing_key: RSAKey) -> Iterator[LoopbackServer]:
    """Where the user pool publishes its signing key."""
    with LoopbackServer(key_set(signing_key)) as server:
        yield server


@pytest.fixture
def options() -> dict[str, str]:
    """The variables that a function need not have; a test that wants some parametrizes this."""
    return {}


@pytest.fixture(scope="session")
def imported_authorizer() -> ModuleType:
    """Import the authorizer once for all tests: a handler with other settings needs no second import."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return import_function("authorizer", monkeypatch, AUTHORIZER)


@pytest.fixture
def authorizer(
    imported_authorizer: ModuleType, monkeypatch: pytest.MonkeyPatch, jwks: LoopbackServer, options: dict[str, str]
) -> ModuleType:
    """Return the authorizer with the handler of a new environment that has these variables, and its keys on loopback."""
    environ = {**AUTHORIZER, **options, JWKS_ENDPOINT: jwks.url}
    handler = imported_authorizer.Authorizer(imported_authorizer.Settings.read(environ))
    monkeypatch.setattr(imported_authorizer, "handler", handler)
    return imported_authorizer


@pytest.fixture
def authorize(authorizer: ModuleType, authorizer_event: EventFactory) -> Authorize:
    """Return the authorizer's answer to a client that connects with this token."""

    def answer(token: object) -> dict[str, Any]:
        policy: dict[str, Any] = authorizer.handler(authorizer_event(queryStringParameters={"idToken": token}), None)
        return policy

    return answer


def effect(policy: dict[str, Any]) -> str:
    (statement,) = policy["policyDocument"]["Statement"]
    return str(statement["Effect"])


@pytest.fixture
def decide(authorizer: ModuleType, caplog: pytest.LogCaptureFixture) -> Decide:
    """Return "Allow", or the reason code in the log for which the authorizer denies this event."""

    def decided(event: Event) -> str:
        allowed = effect(authorizer.handler(event, None)) == "Allow"
        return "Allow" if allowed else str(vars(caplog.records[-1])["reason"])

    return decided


@pytest.fixture
def refusal(decide: Decide, authorizer_event: EventFactory) -> Refusal:
    """Return the reason code in the log for which this token is denied."""

    def reason(token: object) -> str:
        reason = decide(authorizer_event(queryStringParameters={"idToken": token}))
        assert reason != "Allow"
        return reason

    return reason


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> int:
    """The current second, near the end of which time stands still."""
    now = int(time.time())
    monkeypatch.setattr(time, "time", lambda: now + 0.9)
    return now


WEBSOCKET = {"CONNECTION_TABLE_NAME": "connections", "CALLBACK_URL": CALLBACK_URL}


@pytest.fixture(scope="session")
def imported_websocket(xray: None) -> ModuleType:
    """Import the websocket function once for all tests: its clients take longer to create than most tests take."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return import_function("websocket", monkeypatch, WEBSOCKET)


@pytest.fixture
def websocket(imported_websocket: ModuleType, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]) -> ModuleType:
    """Return the websocket function with the settings of these variables and a clock that stands still."""
    monkeypatch.setattr(imported_websocket, "settings", imported_websocket.Settings.read(WEBSOCKET | options))
    monkeypatch.setattr(imported_websocket, "time", SimpleNamespace(time=lambda: NOW + 0.9))
    return imported_websocket


@pytest.fixture
def table(websocket: ModuleType) -> Iterator[Stubber]:
    """Answer the function's calls to DynamoDB: exactly the expected calls, in their order."""
    with Stubber(websocket.dynamodb) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.fixture
def management(websocket: ModuleType) -> Iterator[Stubber]:
    """Answer the function's calls to @connections: exactly the expected calls, in their order."""
    with Stubber(websocket.management) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def database(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalAws]:
    """Run a DynamoDB in memory, with the tables of the websocket function."""
    aws = LocalAws(log=tmp_path_factory.mktemp("database") / "log")
    await aws.start()
    by_connection = [{"AttributeName": "connectionId", "KeyType": "HASH"}]
    by_user = [{"AttributeName": "userId", "KeyType": "HASH"}]
    string = {"AttributeType": "S"}
    create = partial(aws.client("dynamodb").create_table, BillingMode="PAY_PER_REQUEST")
    create(
        TableName="connections",
        KeySchema=by_connection,
        AttributeDefinitions=[{"AttributeName": name, **string} for name in ("connectionId", "userId")],
        GlobalSecondaryIndexes=[
            {"IndexName": "userIdIndex", "KeySchema": by_user, "Projection": {"ProjectionType": "ALL"}}
        ],
    )
    create(TableName="users", KeySchema=by_user, AttributeDefinitions=[{"AttributeName": "userId", **string}])
    yield aws
    await aws.stop()


def unavailable(config: pytest.Config, reason: str, *, option: str = "--require-containers") -> NoReturn:
    """Skip a test that this machine cannot run, or fail it if the option says that the machine must be able to."""
    if config.getoption(option):
        pytest.fail(f"{option}: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def buildx(pytestconfig: pytest.Config) -> None:
    """The buildx command line; it needs no engine."""
    if shutil.which("docker") is None or docker("buildx", "version").returncode != 0:
        unavailable(pytestconfig, "there is no docker buildx command")


@pytest.fixture(scope="session")
def engine(pytestconfig: pytest.Config, buildx: None) -> None:
    """A running Docker engine."""
    if docker("version", "--format", "{{.Server.Version}}").returncode != 0:
        unavailable(pytestconfig, "there is no running Docker engine")


@pytest.fixture(scope="session")
def images(engine: None) -> None:
    """Both images as shipped (`:dev`) and with the emulator on top (`:rie`), built from what is on disk."""
    baked = docker("buildx", "bake", "--load", "default", "rie", TAG="dev")
    assert baked.returncode == 0, baked.stderr


def docker(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments], cwd=ROOT, env=os.environ | environ, capture_output=True, text=True, check=False
    )
