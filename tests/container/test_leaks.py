"""No log, error, trace, table, answer or image contains a token or a part of a token.

The tests send marked tokens in every way and search for them. Planted leaks show that the search works.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
import os
import re
import shutil
import subprocess
import tarfile
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import aws_cdk as cdk
import pytest
from botocore.credentials import Credentials
from joserfc.jwk import RSAKey
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from infra.backend_stack import BackendStack
from infra.websocket_api import Credential
from local.aws.clients import client
from local.aws.users import Users
from local.cloudformation.template import Template
from local.lambda_.processes import Processes
from tests.fixtures import ROOT
from tests.fixtures.emulator import PATIENCE_SECONDS, RunFunction, run_process
from tests.fixtures.engine import docker
from tests.fixtures.gateway import ADMINISTRATOR_KEYS, sign_request
from tests.fixtures.leaks import (
    BROKEN,
    BUILD_CASES,
    DENIED,
    FULL,
    HANGS,
    LAST_EVENT,
    VARIABLES,
    Canary,
    Case,
    Evidence,
    FakeServices,
    RecordingGateway,
    TokenFactory,
    run_behind_emulator,
    run_with_traces,
)
from tests.fixtures.make_up import copy_project, run_up
from tests.fixtures.tokens import Sign

MODES = ["querystring", "subprotocol"]


@pytest.fixture
def canary() -> Canary:
    return Canary()


@pytest.fixture
def token_factory(canary: Canary, sign: Sign, signing_key: RSAKey, other_key: RSAKey) -> TokenFactory:
    return TokenFactory(canary, sign, signing_key, other_key)


@pytest.fixture
def services(signing_key: RSAKey) -> Iterator[FakeServices]:
    with FakeServices(signing_key) as server:
        yield server


@pytest.fixture
def run_as_process(tmp_path: Path) -> RunFunction:
    return partial(run_process, log=tmp_path / "log")


# Functions: logs, answers, errors, calls and traces


@dataclass(frozen=True)
class Collector:
    """Runs a function's cases at the level DEBUG, and collects the evidence."""

    run_function: RunFunction
    services: FakeServices

    def __call__(self, function: str, cases: list[Case], log_format: str, **variables: str) -> Evidence:
        log = {"AWS_LAMBDA_LOG_FORMAT": log_format, "AWS_LAMBDA_LOG_LEVEL": "DEBUG"}
        environ = VARIABLES[function] | self.services.environment | log | variables
        return run_with_traces(self.run_function, function, environ, cases, self.services)


@pytest.fixture
def collect(run_function: RunFunction, services: FakeServices) -> Collector:
    return Collector(run_function, services)


# A line of text has less than a line of JSON, so one mode is enough for it.
@pytest.mark.parametrize(
    ("mode", "log_format"), [("querystring", "Text"), ("querystring", "JSON"), ("subprotocol", "JSON")]
)
def test_authorizer_does_not_leak_the_token(
    collect: Collector, token_factory: TokenFactory, mode: str, log_format: str
) -> None:
    evidence = collect("authorizer", BUILD_CASES["authorizer"](token_factory), log_format, CREDENTIAL_MODE=mode)

    assert token_factory.canary.find(evidence) == []
    assert all(evidence.values())
    assert evidence["answers"].count("Allow") == 1
    if mode == "subprotocol":
        source = (ROOT / "images" / "authorizer" / "authorizer.py").read_text()
        every_reason = set(re.findall(r'Rejected\("([\w.-]+)"\)', source))
        assert every_reason <= set(re.findall(r'"reason": "([^"]+)"', evidence["log"]))


def test_authorizer_without_keys_does_not_leak_the_token(collect: Collector, token_factory: TokenFactory) -> None:
    cases = [Case(case.event, BROKEN) for case in BUILD_CASES["authorizer"](token_factory)]

    evidence = collect("authorizer", cases, "JSON")

    assert token_factory.canary.find(evidence) == []
    assert "KeySetUnavailable" in evidence["answers"]
    assert "Allow" not in evidence["answers"]


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
def test_websocket_function_does_not_leak_the_token(
    collect: Collector, token_factory: TokenFactory, log_format: str
) -> None:
    evidence = collect("websocket", BUILD_CASES["websocket"](token_factory), log_format)

    assert token_factory.canary.find(evidence) == []
    assert all(evidence.values())
    assert "DynamoDB_20120810.PutItem" in evidence["calls"]
    for answer in ("429", "ClientError", "AttributeError", "KeyError", "TypeError"):
        assert answer in evidence["answers"]


@pytest.mark.parametrize("function", BUILD_CASES)
def test_function_that_times_out_does_not_leak_the_token(
    run_function: RunFunction, services: FakeServices, token_factory: TokenFactory, function: str
) -> None:
    event = BUILD_CASES[function](token_factory)[0].event

    def repeat_until_a_request() -> Iterator[Case]:
        while not services.requests:  # before that, the init phase uses up the timeout
            yield Case(event, HANGS)

    environ = VARIABLES[function] | services.environment | {"AWS_LAMBDA_FUNCTION_TIMEOUT": "2"}
    evidence = run_behind_emulator(run_function, function, environ, repeat_until_a_request(), services)

    assert token_factory.canary.find(evidence) == []
    assert "Task timed out" in evidence["answers"]


# The gateway with both functions: its logs, and what its clients receive


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Synthesize our stack for each way to send the token."""
    outdir = tmp_path_factory.mktemp("cdk.out")
    app = cdk.App(outdir=str(outdir), context=json.loads((ROOT / "cdk.json").read_text())["context"])
    for mode in MODES:
        BackendStack(app, mode, credential=Credential(mode), max_connections_per_user=2)
    app.synth()
    return {mode: outdir / f"{mode}.template.json" for mode in MODES}


@pytest.fixture(params=MODES)
def template(request: pytest.FixtureRequest, templates: dict[str, Path]) -> Template:
    return Template.read(templates[request.param])


MakeGateway = Callable[[Path], RecordingGateway]
CollectEvidence = Callable[[RecordingGateway], Evidence]


@pytest.fixture
def make_gateway(template: Template, services: FakeServices, tmp_path: Path) -> MakeGateway:
    """Return a function that creates a gateway, with functions in processes that run these sources."""
    return lambda sources: RecordingGateway(template, Processes(sources, tmp_path / "snapshots"), services)


@pytest.fixture
def collect_evidence(caplog: pytest.LogCaptureFixture) -> CollectEvidence:
    """Return a function that collects what a gateway has sent and logged so far, including the debug log."""
    caplog.set_level(logging.DEBUG)

    def collect(gateway: RecordingGateway) -> Evidence:
        logs: dict[str, list[str]] = {}
        for record in caplog.records:
            if record.name != "websockets.client":  # the test's own client knows the token
                logs.setdefault(f"log of {record.name}", []).append(f"{caplog.handler.format(record)} {vars(record)}")
        sent = {"clients": gateway.received, "answers": gateway.answers, "calls": [gateway.services.calls]}
        return {place: "\n".join(lines) for place, lines in (sent | logs).items()}

    return collect


async def test_gateway_does_not_leak_the_token(
    make_gateway: MakeGateway, token_factory: TokenFactory, collect_evidence: CollectEvidence
) -> None:
    async with make_gateway(ROOT / "images") as running:
        await use_gateway(running, token_factory)

    evidence = collect_evidence(running)
    assert token_factory.canary.find(evidence) == []
    assert all(evidence.values())
    assert {
        "log of function.authorizer",
        "log of function.websocket",
        "log of local.apigateway.server",
    } <= evidence.keys()


async def use_gateway(gateway: RecordingGateway, token_factory: TokenFactory) -> None:
    """Make the gateway send each kind of answer."""
    gateway.services.fault = BROKEN
    assert await gateway.connect_or_get_status(token_factory.sign_valid()) == 500  # the keys cannot be downloaded
    gateway.services.fault = None
    await gateway.restart("authorizer")

    peer = await gateway.connect(token_factory.sign_valid())
    exp = int(time.time()) + 3
    expiring = await gateway.connect(token_factory.sign_valid(exp=exp))
    assert await gateway.send(peer, "hello") == {"message": "hello"}
    await send_invalid_requests(gateway, token_factory)
    await call_management_api(gateway, token_factory.sign_valid())
    async with gateway.hang("websocket"):
        assert await gateway.connect_or_get_status(token_factory.sign_valid()) == 504

    await asyncio.sleep(max(0.0, exp - time.time()))
    assert (await gateway.send(expiring, "still there?"))["error"] == "token_expired"
    assert await gateway.wait_until_closed(expiring) == 1000

    gateway.iam.sessions.clear()  # functions may not post from now on
    assert (await gateway.send(peer, "hello"))["message"] == "Internal server error"
    await peer.close(4000, token_factory.canary.marker)  # the reason is in the `$disconnect` event
    peer = await gateway.connect(token_factory.sign_valid())
    await gateway.server.stop()
    assert await gateway.wait_until_closed(peer) == 1001


async def send_invalid_requests(gateway: RecordingGateway, token_factory: TokenFactory) -> None:
    """Make the gateway refuse handshakes and requests with each of its statuses."""
    token, marker = token_factory.sign_valid(), token_factory.canary.marker
    assert await gateway.connect_or_get_status(token, omit_identity_source=True) == 401
    for forged in (
        token_factory.sign_marked(),
        token_factory.sign_valid(exp=1),
        token_factory.sign_valid(aud=marker),
        token_factory.sign_marked(key=token_factory.other_key, sub=marker),
    ):
        assert await gateway.connect_or_get_status(forged) == 403
    for status, fault in ((502, BROKEN), (502, DENIED), (429, FULL)):
        gateway.services.fault = fault
        assert await gateway.connect_or_get_status(token) == status
    gateway.services.fault = None

    offer = f"Host: localhost\nSec-WebSocket-Protocol: echo.v1, idToken.{token}"
    request = f"GET /prod?idToken={token} HTTP/1.1\n{offer}"
    elsewhere = f"GET /{token} HTTP/1.1\n{offer}"
    key = "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg=="
    upgrade = f"Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n{key}"
    for status, head in (
        (400, f"{request}\n{upgrade.replace(key, 'Pragma: no-cache')}"),
        (400, f"{request}\n{upgrade.replace('13', '8')}"),
        (400, f"{request}=\n{upgrade}"),
        (400, f"{request}\nHost: {token}\n{upgrade}"),
        (403, f"{elsewhere}\n{upgrade}"),
        (414, f"{request.replace('=', '=' * 4096, 1)}\n{upgrade}"),
        (431, f"{request}\n{f'Cookie: {token}' * 15}\n{upgrade}"),
        (0, f"{request}\nidToken {token}\n{upgrade}"),
        (0, f"{request.replace('1.1', token)}\n{upgrade}"),
        (426, f"{request}\nConnection: close"),
        (403, f"{elsewhere}\nConnection: close"),
        (400, f"{request}\nidToken {token}\nConnection: close"),
        (400, f"{request.replace('1.1', token)}\nConnection: close"),
        (400, f"{token}\n{offer}\nConnection: close"),
    ):
        assert (head, await gateway.send_request(head)) == (head, status)


async def call_management_api(gateway: RecordingGateway, token: str) -> None:
    """Get each status of `@connections`, for a connection whose token the calls contain too."""
    peer = await gateway.connect(token)
    path = "/prod/@connections"
    there = f"{path}/{gateway.connection_id}"
    for status, call, caller, body in (
        (403, f"POST {there}", None, b"no signature"),
        (403, f"POST {there}", Credentials("AKIDEXAMPLE", "secret"), b"of nobody"),
        (403, f"POST {there}", Credentials("test", "secret"), b"signed wrongly"),
        (403, f"GET {there}", gateway.function_credentials, b""),
        (403, f"PUT {there}", ADMINISTRATOR_KEYS, b"no such call"),
        (400, f"POST {path}/none", ADMINISTRATOR_KEYS, b"no connection's id"),
        (400, f"POST {there}", ADMINISTRATOR_KEYS, b"\xff"),
        (410, f"POST {path}/G0neOFvHcCIhwAA=", ADMINISTRATOR_KEYS, b"to nobody"),
        (413, f"POST {there}", ADMINISTRATOR_KEYS, bytes(128 * 1024 + 1)),
        (200, f"GET {there}", ADMINISTRATOR_KEYS, b""),
        (200, f"POST {there}", ADMINISTRATOR_KEYS, b"news"),
        (204, f"DELETE {there}", ADMINISTRATOR_KEYS, b""),
    ):
        signed = sign_request(call, body, caller) if caller else [f"Authorization: Bearer {token}"]
        other = f"Cookie: idToken={token}\nHost: localhost\nConnection: close"
        head = "\n".join([f"{call} HTTP/1.1", other, *signed])
        assert (call, body, await gateway.send_request(head, body)) == (call, body, status)
    assert await peer.recv() == "news"
    assert await gateway.wait_until_closed(peer) == 1000


# The local run as its users start it


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning:pycognito")
def test_local_run_does_not_leak_the_token(templates: dict[str, Path], canary: Canary, tmp_path: Path) -> None:
    evidence = run_up_and_collect(tmp_path, templates["querystring"], canary)

    assert canary.find(evidence) == []
    assert {"aws.log", "up.json"} <= {Path(place).name for place in evidence}
    assert "connection rejected" in evidence["terminal"]
    assert "connectionId" in evidence["tables"]


def run_up_and_collect(folder: Path, template: Path, canary: Canary) -> Evidence:
    """Run `up` and connect clients with its Cognito's tokens. Return its output, files, tables and answers."""
    checkout = copy_project(folder / "project")
    with run_up(checkout, f"--template={template}") as up:
        facts = up.state
        token = sign_up(facts, canary)
        assert canary.is_in(token.encode())
        evidence = connect_clients(up.port, token, canary, facts) | {"up.json": json.dumps(facts)}
    return evidence | read_files(checkout.root / ".local") | {"terminal": up.command.output.read_text()}


def sign_up(facts: dict[str, Any], canary: Canary) -> str:
    """Create a user with the marker in an attribute; return an ID token of the user."""
    email, password = "canary@example.com", "correct-Horse-battery-1"
    users = Users(facts["cognito_url"], facts["user_pool_id"], facts["app_client_id"])
    users.add(email, password)
    users.cognito.admin_update_user_attributes(
        UserPoolId=users.user_pool_id,
        Username=email,
        UserAttributes=[{"Name": "locale", "Value": canary.marker}],
    )
    return canary.mark(users.get_id_token(email, password))


def connect_clients(port: int, token: str, canary: Canary, facts: dict[str, Any]) -> Evidence:
    """Connect clients with valid and invalid tokens; return all that they receive, and the tables meanwhile."""
    forged = canary.mark(f"{token[:-100]}{token[-100:].swapcase()}")
    url = f"ws://127.0.0.1:{port}/prod"
    offer = [Subprotocol(name) for name in ("echo.v1", f"idToken.{token}")]
    with connect(f"{url}?idToken={token}") as phone, connect(f"{url}?idToken={token}") as laptop:
        responses = [phone.response, laptop.response]
        for status, refused, subprotocols in (
            (429, f"{url}?idToken={token}", None),
            (403, f"{url}?idToken={forged}", None),
            (401, url, offer),
        ):
            with pytest.raises(InvalidStatus) as refusal:
                connect(refused, subprotocols=subprotocols)
            responses.append(refusal.value.response)
            assert refusal.value.response.status_code == status
        phone.send("hello")
        echo = phone.recv(PATIENCE_SECONDS)
        return {"clients": f"{echo!r} {responses}", "tables": read_tables(facts)}


def read_tables(facts: dict[str, Any]) -> str:
    dynamodb = client("dynamodb", facts["dynamodb_url"])
    return str([dynamodb.scan(TableName=name)["Items"] for name in dynamodb.list_tables()["TableNames"]])


def read_files(folder: Path) -> Evidence:
    return {f"{path}": path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()}


# Images


@pytest.fixture
def build_folder(canary: Canary, token_factory: TokenFactory, tmp_path: Path) -> Path:
    """Copy the images' sources; add files with a token beside and inside the build contexts."""
    shutil.copytree(ROOT / "images", tmp_path / "images")
    shutil.copy(ROOT / "docker-bake.hcl", tmp_path)
    for name in ("token", "images/.env", "images/authorizer/.env", "images/websocket/token.txt"):
        (tmp_path / name).write_text(f"ID_TOKEN={token_factory.sign_valid()}\n")
    return tmp_path


def build(folder: Path, token_factory: TokenFactory, *arguments: str, **environ: str) -> None:
    """Run `docker buildx` with tokens in the environment."""
    tokens = {name: token_factory.sign_valid() for name in ("ID_TOKEN", "TOKEN", "AWS_SESSION_TOKEN")}
    command = ["docker", "buildx", *arguments]
    built = subprocess.run(
        command, cwd=folder, env=os.environ | tokens | environ, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr


@contextmanager
def save_images(*images: str) -> Iterator[dict[str, bytes]]:
    """Save images; yield their layers, manifests, and configurations with histories, by name. Then remove the images."""
    try:
        archive = subprocess.run(["docker", "save", *images], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            files = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
            yield {name: decompress(file.read()) for name, file in files.items() if file}
    finally:
        docker("rmi", *images)


def decompress(octets: bytes) -> bytes:
    return gzip.decompress(octets) if octets.startswith(b"\x1f\x8b") else octets


def test_token_in_the_build_folder_is_not_copied_into_an_image(
    build_folder: Path, token_factory: TokenFactory, engine: None
) -> None:
    tag = f"canary-{token_factory.canary.marker[:8]}"
    build(build_folder, token_factory, "bake", "--load", "default", TAG=tag)

    with save_images(f"authorizer:{tag}", f"websocket:{tag}") as contents:
        assert [name for name, octets in contents.items() if token_factory.canary.is_in(octets)] == []
        assert b"awslambdaric" in b"".join(contents.values())


def test_token_planted_in_a_layer_and_in_the_configuration_of_an_image_is_found(
    build_folder: Path, token_factory: TokenFactory, engine: None
) -> None:
    tag = f"planted:{token_factory.canary.marker[:8]}"
    lines = ["FROM scratch", "COPY images/.env /var/task/.env", f"LABEL token={token_factory.sign_valid()}", ""]
    (build_folder / "Dockerfile").write_text("\n".join(lines))
    build(build_folder, token_factory, "build", "--load", f"--tag={tag}", ".")

    with save_images(tag) as contents:
        found = [octets for octets in contents.values() if token_factory.canary.is_in(octets)]
        assert {octets.startswith(b"{") for octets in found} == {True, False}  # a JSON document and an archive


# Planted leaks show that the tests above can fail

ID_TOKEN = 'event["queryStringParameters"]["idToken"]'
OFFERED = 'event["headers"]["Sec-WebSocket-Protocol"].split(", ")[-1]'
STORE = (
    'dynamodb.put_item(TableName=settings.connection_table, Item={"connectionId": {"S": "planted"}, '
    f'"token": {{"S": {ID_TOKEN}}}}})'
)


class Leak(NamedTuple):
    """Code to insert at the start of a handler, and the places to which the code leaks the token."""

    places: set[str]
    function: str
    code: str
    log_format: str = "JSON"


Plant = Callable[[Leak], Path]


@pytest.mark.parametrize(
    "leak",
    [
        lambda token: token[-20:],
        lambda token: urlsafe_b64decode(f"{token.split('.')[1]}==").decode(),
        lambda token: urlsafe_b64encode(f"the token: {token}".encode()).decode(),
        lambda token: "".join(f"%{ord(character):02X}" for character in token),
    ],
    ids=["last characters", "decoded claims", "base64", "percent-encoded"],
)
def test_part_or_encoding_of_a_token_is_found(token_factory: TokenFactory, leak: Callable[[str], str]) -> None:
    found = token_factory.canary.find({"log": f"asked with {leak(token_factory.sign_valid())}"})

    assert list_places(found) == ["log"]


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Return a function that copies the functions' sources, inserts a leak, and makes `emulator` run the copy."""

    def copy_with_leak(leak: Leak) -> Path:
        sources = shutil.copytree(ROOT / "images", tmp_path / "images")
        (tmp_path / ".local").symlink_to(ROOT / ".local")
        module = sources / leak.function / f"{leak.function}.py"
        handler = r"(^ *)(def (?:handler|__call__)\(.*\n)"
        before, indent, line, after = re.split(handler, module.read_text(), flags=re.MULTILINE)
        module.write_text(f"{before}{indent}{line}{indent}    {leak.code}\n{after}")
        monkeypatch.setattr("tests.fixtures.emulator.ROOT", tmp_path)
        return sources

    return copy_with_leak


def list_places(hits: list[str]) -> list[str]:
    return [hit.partition(":")[0] for hit in hits]


@pytest.mark.parametrize(
    "leak",
    [
        Leak({"log"}, "authorizer", 'logger.debug("%s", event)', "Text"),
        Leak({"log"}, "authorizer", 'logger.debug("asked", extra={"headers": event["headers"]})'),
        Leak({"log", "answers"}, "websocket", f"raise RuntimeError({ID_TOKEN})"),
        Leak({"traces"}, "authorizer", f'with trace("x", {{"connectionId": {ID_TOKEN}, "routeKey": ""}}): pass'),
    ],
    ids=lambda leak: f"{' and '.join(sorted(leak.places))}, {leak.log_format}",
)
def test_leak_planted_in_a_function_is_found(
    plant: Plant, run_as_process: RunFunction, services: FakeServices, token_factory: TokenFactory, leak: Leak
) -> None:
    plant(leak)
    collect = Collector(run_as_process, services)
    cases = [BUILD_CASES[leak.function](token_factory)[0], Case(LAST_EVENT)]

    evidence = collect(leak.function, cases, leak.log_format)

    assert {*list_places(token_factory.canary.find(evidence))} == leak.places


@pytest.mark.parametrize(
    "leak",
    [
        Leak(
            {"answers"},
            "authorizer",
            f'return build_policy("Allow", event["methodArn"], principal_id="x", context={{"x": {ID_TOKEN}}})',
        ),
        Leak(
            {"clients", "log of function.websocket"},
            "websocket",
            f'print(event); return {{"statusCode": 200, "headers": {{"Sec-WebSocket-Protocol": {OFFERED}}}}}',
        ),
        Leak(
            {"clients", "calls"},
            "websocket",
            f'{STORE}; return {{"statusCode": 403, "body": json.dumps(event)}}',
        ),
    ],
    ids=lambda leak: " and ".join(sorted(leak.places)),
)
@pytest.mark.parametrize("template", ["subprotocol"], indirect=True)
async def test_leak_planted_behind_the_gateway_is_found(
    plant: Plant, make_gateway: MakeGateway, token_factory: TokenFactory, collect_evidence: CollectEvidence, leak: Leak
) -> None:
    async with make_gateway(plant(leak)) as running:
        await running.connect_or_get_status(token_factory.sign_valid())

    assert leak.places <= {*list_places(token_factory.canary.find(collect_evidence(running)))}
