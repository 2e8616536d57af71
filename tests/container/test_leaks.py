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

from infra.backend_stack import BackendStack
from infra.websocket_api import ACCESS_LOG_FORMAT, Credential
from local.aws.clients import client
from local.aws.users import Users
from local.cloudformation.template import Template
from local.lambda_.containers import Containers
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
    """Runs a function's cases with a log format and level, and collects the evidence."""

    run: Callable[..., Evidence]
    log_format: str
    level: str
    run_function: RunFunction
    services: FakeServices

    def __call__(self, function: str, cases: list[Case], **variables: str) -> Evidence:
        log = {"AWS_LAMBDA_LOG_FORMAT": self.log_format, "AWS_LAMBDA_LOG_LEVEL": self.level}
        environ = VARIABLES[function] | self.services.environment | log | variables
        return self.run(self.run_function, function, environ, cases, self.services)


@pytest.fixture(
    params=[
        (run_behind_emulator, "Text", "DEBUG"),
        (run_behind_emulator, "JSON", "INFO"),
        (run_with_traces, "Text", "INFO"),
        (run_with_traces, "JSON", "DEBUG"),
    ],
    ids=lambda param: "-".join(getattr(each, "__name__", each) for each in param),
)
def collect(request: pytest.FixtureRequest, run_function: RunFunction, services: FakeServices) -> Collector:
    run, log_format, level = request.param
    return Collector(run, log_format, level, run_function, services)


@pytest.mark.parametrize("mode", MODES)
def test_authorizer_does_not_leak_the_token(collect: Collector, token_factory: TokenFactory, mode: str) -> None:
    evidence = collect("authorizer", BUILD_CASES["authorizer"](token_factory), CREDENTIAL_MODE=mode)

    assert token_factory.canary.find(evidence) == []
    assert all(evidence.values())
    assert evidence["answers"].count("Allow") == 1
    if (collect.log_format, mode) == ("JSON", "subprotocol"):
        source = (ROOT / "images" / "authorizer" / "authorizer.py").read_text()
        every_reason = set(re.findall(r'Rejected\("([\w.-]+)"\)', source))
        assert every_reason <= set(re.findall(r'"reason": "([^"]+)"', evidence["log"]))


def test_authorizer_without_keys_does_not_leak_the_token(collect: Collector, token_factory: TokenFactory) -> None:
    evidence = collect("authorizer", [Case(case.event, BROKEN) for case in BUILD_CASES["authorizer"](token_factory)])

    assert token_factory.canary.find(evidence) == []
    assert "KeySetUnavailable" in evidence["answers"]
    assert "Allow" not in evidence["answers"]


def test_websocket_function_does_not_leak_the_token(collect: Collector, token_factory: TokenFactory) -> None:
    evidence = collect("websocket", BUILD_CASES["websocket"](token_factory))

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


@pytest.fixture(params=["process", "image"])
def launcher(request: pytest.FixtureRequest, tmp_path: Path) -> Launcher:
    """Create what runs the functions."""
    if request.param == "image":
        request.getfixturevalue("images")
        return Containers()
    return Processes(ROOT / "images", tmp_path / "snapshots")


Launcher = Containers | Processes
MakeGateway = Callable[[Launcher], RecordingGateway]
CollectEvidence = Callable[[RecordingGateway], Evidence]


@pytest.fixture
def make_gateway(template: Template, services: FakeServices) -> MakeGateway:
    return lambda launcher: RecordingGateway(template, launcher, services)


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
    launcher: Launcher, make_gateway: MakeGateway, token_factory: TokenFactory, collect_evidence: CollectEvidence
) -> None:
    async with make_gateway(launcher) as running:
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


IGNORE_SRP_WARNING = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning:pycognito")


@IGNORE_SRP_WARNING
@pytest.mark.parametrize("mode", MODES)
def test_local_run_does_not_leak_the_token(
    mode: str, templates: dict[str, Path], canary: Canary, tmp_path: Path
) -> None:
    evidence = run_up_and_collect(tmp_path, mode, canary, "--template", f"{templates[mode]}")

    assert canary.find(evidence) == []
    assert {"aws.log", "up.json"} <= {Path(place).name for place in evidence}
    assert "connection rejected" in evidence["terminal"]


def run_up_and_collect(folder: Path, mode: str, canary: Canary, *arguments: str) -> Evidence:
    """Run `up` and connect clients with its Cognito's tokens. Return its output, files, tables and answers."""
    checkout = copy_project(folder / "project")
    with run_up(checkout, *arguments) as up:
        facts = up.state
        token = sign_up(facts, canary)
        assert canary.is_in(token.encode())
        evidence = {"clients": connect_clients(up.port, mode, token, canary), "tables": read_tables(facts)}
        evidence |= {"up.json": json.dumps(facts)}
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


def connect_clients(port: int, mode: str, token: str, canary: Canary) -> str:
    """Connect clients with valid and invalid tokens; return all that they receive."""
    forged = canary.mark(f"{token[:-100]}{token[-100:].swapcase()}")
    (other,) = {*MODES} - {mode}
    with connect(**build_options(port, mode, token)) as phone, connect(**build_options(port, mode, token)) as laptop:
        responses = [phone.response, laptop.response]
        for status, refused in (
            (429, build_options(port, mode, token)),
            (403, build_options(port, mode, forged)),
            (401, build_options(port, other, token)),
        ):
            with pytest.raises(InvalidStatus) as refusal:
                connect(**refused)
            responses.append(refusal.value.response)
            assert responses[-1].status_code == status
        phone.send("hello")
        echo = phone.recv(PATIENCE_SECONDS)
    return f"{echo!r} {responses}"


def build_options(port: int, mode: str, token: str) -> dict[str, Any]:
    url = f"ws://127.0.0.1:{port}/prod"
    if mode == "querystring":
        return {"uri": f"{url}?idToken={token}"}
    return {"uri": url, "subprotocols": ["echo.v1", f"idToken.{token}"]}


def read_tables(facts: dict[str, Any]) -> str:
    dynamodb = client("dynamodb", facts["dynamodb_url"])
    return str([dynamodb.scan(TableName=name)["Items"] for name in dynamodb.list_tables()["TableNames"]])


def read_files(folder: Path) -> Evidence:
    return {f"{path}": path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()}


# Access logs

# The variables that the stack may log. The client sends none of them; sourceIp is its address.
ALLOWED_VARIABLES = {
    "$context.requestId",
    "$context.requestTime",
    "$context.eventType",
    "$context.routeKey",
    "$context.status",
    "$context.connectionId",
    "$context.identity.sourceIp",
    "$context.authorizer.principalId",
    "$context.authorizer.error",
    "$context.authorizer.latency",
    "$context.authorizer.requestId",
    "$context.authorizer.status",
    "$context.error.message",
    "$context.error.responseType",
    "$context.integration.latency",
    "$context.integration.requestId",
    "$context.integration.status",
    "$context.integration.error",
}


def find_unlisted(log_format: str) -> set[str]:
    return set(re.findall(r"\$[^\s\"',;|)}\]]*", log_format)) - ALLOWED_VARIABLES


def test_access_log_has_no_variable_that_could_contain_the_token(template: Template) -> None:
    (stage,) = (each for each in template.resources.values() if each["Type"] == "AWS::ApiGatewayV2::Stage")
    properties = stage["Properties"]

    assert find_unlisted(properties["AccessLogSettings"]["Format"]) == set()
    assert "DataTraceEnabled" not in json.dumps(properties)  # it would log complete requests


@pytest.mark.parametrize(
    "variable",
    [
        "$context.authorizer.token",
        "$context.authorizer.claims.email",
        "$context.requestOverride.querystring.idToken",
        "$context.requestOverride.header.Sec-WebSocket-Protocol",
        "$context.path",
        "$context.identity.userAgent",
        "$input.params('idToken')",
        "$stageVariables.token",
    ],
)
def test_variable_planted_in_the_access_log_is_found(variable: str) -> None:
    assert find_unlisted(json.dumps(ACCESS_LOG_FORMAT | {"planted": variable})) != set()


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


@pytest.mark.parametrize(
    "line",
    ["COPY images/.env /var/task/.env", "LABEL token={token}", "ENV TOKEN={token}", "COPY images /images"],
)
def test_token_planted_in_an_image_is_found(
    build_folder: Path, token_factory: TokenFactory, engine: None, line: str
) -> None:
    tag = f"planted:{token_factory.canary.marker[:8]}"
    lines = ["FROM scratch", "COPY docker-bake.hcl /", line.format(token=token_factory.sign_valid()), ""]
    (build_folder / "Dockerfile").write_text("\n".join(lines))
    build(build_folder, token_factory, "build", "--load", f"--tag={tag}", ".")

    with save_images(tag) as contents:
        assert [name for name, octets in contents.items() if token_factory.canary.is_in(octets)] != []


# Planted leaks show that the tests above can fail

ID_TOKEN = 'event["queryStringParameters"]["idToken"]'
OFFERED = 'event["headers"]["Sec-WebSocket-Protocol"].split(", ")[-1]'


class Leak(NamedTuple):
    """Code to insert at the start of a handler, and the place to which the code leaks the token."""

    place: str
    function: str
    code: str
    log_format: str = "JSON"


Plant = Callable[[Leak], Path]


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
        Leak("log", "authorizer", 'logger.info("%s", event)'),
        Leak("log", "authorizer", 'logger.info("%s", event)', "Text"),
        Leak("log", "authorizer", 'logger.info("asked", extra={"headers": event["headers"]})'),
        Leak("log", "authorizer", f'logger.debug("it ends with %s", {ID_TOKEN}[-20:])'),
        Leak("log", "authorizer", f"print(urlsafe_b64decode({ID_TOKEN}.split('.')[1] + '=='))"),
        Leak(
            "log", "authorizer", f"import base64; print(base64.urlsafe_b64encode(b'the token: ' + {ID_TOKEN}.encode()))"
        ),
        Leak("log", "websocket", f"raise RuntimeError({ID_TOKEN})"),
        Leak("log", "websocket", f"raise RuntimeError({ID_TOKEN})", "Text"),
        Leak("answers", "websocket", f"raise RuntimeError({ID_TOKEN})"),
        Leak("traces", "authorizer", f'with trace("x", {{"connectionId": {ID_TOKEN}, "routeKey": ""}}): pass'),
    ],
    ids=lambda leak: f"{leak.place} of {leak.function}",
)
def test_leak_planted_in_a_function_is_found(
    plant: Plant, run_as_process: RunFunction, services: FakeServices, token_factory: TokenFactory, leak: Leak
) -> None:
    plant(leak)
    collect = Collector(run_with_traces, leak.log_format, "DEBUG", run_as_process, services)

    evidence = collect(leak.function, [BUILD_CASES[leak.function](token_factory)[0], Case(LAST_EVENT)])

    assert leak.place in list_places(token_factory.canary.find(evidence))


@pytest.mark.parametrize(
    "leak",
    [
        Leak("log of function.websocket", "websocket", "print(event)"),
        Leak(
            "answers",
            "authorizer",
            f'return build_policy("Allow", event["methodArn"], principal_id="x", context={{"x": {ID_TOKEN}}})',
        ),
        Leak(
            "clients", "websocket", f'return {{"statusCode": 200, "headers": {{"Sec-WebSocket-Protocol": {OFFERED}}}}}'
        ),
        Leak("clients", "websocket", 'return {"statusCode": 403, "body": json.dumps(event)}'),
        Leak(
            "calls",
            "websocket",
            f'dynamodb.put_item(TableName=settings.connection_table, Item={{"connectionId": {{"S": "x"}}, "token": {{"S": {ID_TOKEN}}}}})',
        ),
    ],
    ids=lambda leak: leak.place,
)
@pytest.mark.parametrize("template", ["subprotocol"], indirect=True)
async def test_leak_planted_behind_the_gateway_is_found(
    plant: Plant, make_gateway: MakeGateway, token_factory: TokenFactory, collect_evidence: CollectEvidence, leak: Leak
) -> None:
    sources = plant(leak)
    async with make_gateway(Processes(sources, sources.parent / "snapshots")) as running:
        await running.connect_or_get_status(token_factory.sign_valid())

    assert leak.place in list_places(token_factory.canary.find(collect_evidence(running)))


@IGNORE_SRP_WARNING
def test_leak_planted_in_the_local_run_is_found(
    plant: Plant, templates: dict[str, Path], canary: Canary, tmp_path: Path
) -> None:
    stored = f'dynamodb.put_item(TableName=settings.connection_table, Item={{"connectionId": {{"S": "planted"}}, "token": {{"S": {ID_TOKEN}}}}})'
    sources = plant(Leak("terminal and tables", "websocket", f'if "headers" in event: print(event), {stored}'))
    arguments = ["--template", f"{templates['querystring']}", "--images", f"{sources}"]

    evidence = run_up_and_collect(tmp_path, "querystring", canary, *arguments)

    assert list_places(canary.find(evidence)) == ["tables", "terminal"]
