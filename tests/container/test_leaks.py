"""No token, nor a piece of one, comes to light: not in a log, an error, a trace, a table, an answer or an image.

A marked token is dragged through all of it, and one hit is a failure. Leaks on purpose show that there would be one.
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
from tests.fixtures.emulator import PATIENCE_SECONDS, RunFunction, container, process
from tests.fixtures.engine import docker
from tests.fixtures.gateway import DESK, sign_request
from tests.fixtures.leaks import (
    BROKEN,
    CASES,
    DENIED,
    FULL,
    HANGS,
    LAST,
    VARIABLES,
    Canary,
    Case,
    Evidence,
    Mint,
    Service,
    Stage,
    behind_emulator,
    with_traces,
)
from tests.fixtures.make_up import copy_project, run_up
from tests.fixtures.tokens import Sign

MODES = ["querystring", "subprotocol"]


@pytest.fixture
def canary() -> Canary:
    return Canary()


@pytest.fixture
def mint(canary: Canary, sign_request: Sign, signing_key: RSAKey, other_key: RSAKey) -> Mint:
    return Mint(canary, sign_request, signing_key, other_key)


@pytest.fixture
def service(signing_key: RSAKey) -> Iterator[Service]:
    with Service(signing_key) as server:
        yield server


@pytest.fixture
def as_process(tmp_path: Path) -> RunFunction:
    return partial(process, log=tmp_path / "log")


# Functions: what they log, answer and store, their errors and traces


@dataclass(frozen=True)
class Drag:
    """Drags a function through its cases, with logs of one format and level."""

    way: Callable[..., Evidence]
    log_format: str
    level: str
    run_function: RunFunction
    service: Service

    def __call__(self, function: str, cases: list[Case], **variables: str) -> Evidence:
        log = {"AWS_LAMBDA_LOG_FORMAT": self.log_format, "AWS_LAMBDA_LOG_LEVEL": self.level}
        environ = VARIABLES[function] | self.service.environment | log | variables
        return self.way(self.run_function, function, environ, cases, self.service)


@pytest.fixture(
    params=[
        ("process", behind_emulator, "Text", "DEBUG"),
        ("process", behind_emulator, "JSON", "INFO"),
        ("process", with_traces, "Text", "INFO"),
        ("process", with_traces, "JSON", "DEBUG"),
        ("image", behind_emulator, "JSON", "INFO"),
        ("image", with_traces, "Text", "DEBUG"),
    ],
    ids=lambda param: "-".join(getattr(each, "__name__", each) for each in param),
)
def drag(request: pytest.FixtureRequest, as_process: RunFunction, service: Service) -> Drag:
    run, way, log_format, level = request.param
    if run == "image":
        request.getfixturevalue("images")
    return Drag(way, log_format, level, container if run == "image" else as_process, service)


@pytest.mark.parametrize("mode", MODES)
def test_authorizer_tells_nobody_the_token(drag: Drag, mint: Mint, mode: str) -> None:
    evidence = drag("authorizer", CASES["authorizer"](mint), CREDENTIAL_MODE=mode)

    assert mint.canary.hits(evidence) == []
    assert all(evidence.values())
    assert evidence["answers"].count("Allow") == 1
    if (drag.log_format, mode) == ("JSON", "subprotocol"):
        source = (ROOT / "images" / "authorizer" / "authorizer.py").read_text()
        every_reason = set(re.findall(r'Rejected\("([\w.-]+)"\)', source))
        assert every_reason <= set(re.findall(r'"reason": "([^"]+)"', evidence["log"]))


def test_authorizer_without_keys_tells_nobody_the_token(drag: Drag, mint: Mint) -> None:
    evidence = drag("authorizer", [Case(case.event, BROKEN) for case in CASES["authorizer"](mint)])

    assert mint.canary.hits(evidence) == []
    assert "KeySetUnavailable" in evidence["answers"]
    assert "Allow" not in evidence["answers"]


def test_websocket_function_tells_nobody_the_token(drag: Drag, mint: Mint) -> None:
    evidence = drag("websocket", CASES["websocket"](mint))

    assert mint.canary.hits(evidence) == []
    assert all(evidence.values())
    assert "DynamoDB_20120810.PutItem" in evidence["calls"]
    for answer in ("429", "ClientError", "AttributeError", "KeyError", "TypeError"):
        assert answer in evidence["answers"]


@pytest.mark.parametrize("function", CASES)
def test_function_that_times_out_tells_nobody_the_token(
    as_process: RunFunction, service: Service, mint: Mint, function: str
) -> None:
    event = CASES[function](mint)[0].event

    def until_it_waits_for_an_answer() -> Iterator[Case]:
        while not service.requests:  # or it was its init phase that took all of the time
            yield Case(event, HANGS)

    environ = VARIABLES[function] | service.environment | {"AWS_LAMBDA_FUNCTION_TIMEOUT": "2"}
    evidence = behind_emulator(as_process, function, environ, until_it_waits_for_an_answer(), service)

    assert mint.canary.hits(evidence) == []
    assert "Task timed out" in evidence["answers"]


# The gateway: what it logs and what its clients get, with the functions behind it


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Our stack's, by the place where it takes the token."""
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
    """How the functions are run."""
    if request.param == "image":
        request.getfixturevalue("images")
        return Containers()
    return Processes(ROOT / "images", tmp_path / "snapshots")


Launcher = Containers | Processes
MakeStage = Callable[[Launcher], Stage]
Hear = Callable[[Stage], Evidence]


@pytest.fixture
def stage(template: Template, service: Service) -> MakeStage:
    return lambda launcher: Stage(template, launcher, service)


@pytest.fixture
def hear(caplog: pytest.LogCaptureFixture) -> Hear:
    """Everything that a gateway has said so far, be it to the debug log."""
    caplog.set_level(logging.DEBUG)

    def heard(stage: Stage) -> Evidence:
        logs: dict[str, list[str]] = {}
        for record in caplog.records:
            if record.name != "websockets.client":  # which is the test's own, and knows the token
                logs.setdefault(f"log of {record.name}", []).append(f"{caplog.handler.format(record)} {vars(record)}")
        said = {"clients": stage.got, "answers": stage.answers, "calls": [stage.service.calls]}
        return {place: "\n".join(lines) for place, lines in (said | logs).items()}

    return heard


async def test_gateway_tells_nobody_the_token(launcher: Launcher, stage: MakeStage, mint: Mint, hear: Hear) -> None:
    async with stage(launcher) as running:
        await drag_through(running, mint)

    evidence = hear(running)
    assert mint.canary.hits(evidence) == []
    assert all(evidence.values())
    assert {
        "log of function.authorizer",
        "log of function.websocket",
        "log of local.apigateway.server",
    } <= evidence.keys()


async def drag_through(stage: Stage, mint: Mint) -> None:
    """Everything that the gateway can answer."""
    stage.service.fault = BROKEN
    assert await stage.open(mint.valid()) == 500  # the keys cannot be had
    stage.service.fault = None
    await stage.restart("authorizer")

    peer = await stage.opened(mint.valid())
    exp = int(time.time()) + 3
    expiring = await stage.opened(mint.valid(exp=exp))
    assert await stage.say(peer, "hello") == {"message": "hello"}
    await refused(stage, mint)
    await called_back(stage, mint.valid())
    async with stage.hanging("websocket"):
        assert await stage.open(mint.valid()) == 504

    await asyncio.sleep(max(0.0, exp - time.time()))
    assert (await stage.say(expiring, "still there?"))["error"] == "token_expired"
    assert await stage.closed(expiring) == 1000

    stage.iam.sessions.clear()  # so that no function may post any more
    assert (await stage.say(peer, "hello"))["message"] == "Internal server error"
    await peer.close(4000, mint.canary.marker)  # the reason is in the `$disconnect` event
    peer = await stage.opened(mint.valid())
    await stage.server.stop()
    assert await stage.closed(peer) == 1001


async def refused(stage: Stage, mint: Mint) -> None:
    token, marker = mint.valid(), mint.canary.marker
    assert await stage.open(token, but_where_it_belongs=True) == 401
    for forged in (mint.token(), mint.valid(exp=1), mint.valid(aud=marker), mint.token(key=mint.other_key, sub=marker)):
        assert await stage.open(forged) == 403
    for status, fault in ((502, BROKEN), (502, DENIED), (429, FULL)):
        stage.service.fault = fault
        assert await stage.open(token) == status
    stage.service.fault = None

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
        assert (head, await stage.ask(head)) == (head, status)


async def called_back(stage: Stage, token: str) -> None:
    """`@connections`, of a connection that was opened with a token, asked by callers who know it."""
    peer = await stage.opened(token)
    path = "/prod/@connections"
    there = f"{path}/{stage.connection_id}"
    for status, call, caller, body in (
        (403, f"POST {there}", None, b"no signature"),
        (403, f"POST {there}", Credentials("AKIDEXAMPLE", "secret"), b"of nobody"),
        (403, f"POST {there}", Credentials("test", "secret"), b"signed wrongly"),
        (403, f"GET {there}", stage.function, b""),
        (403, f"PUT {there}", DESK, b"no such call"),
        (400, f"POST {path}/none", DESK, b"no connection's id"),
        (400, f"POST {there}", DESK, b"\xff"),
        (410, f"POST {path}/G0neOFvHcCIhwAA=", DESK, b"to nobody"),
        (413, f"POST {there}", DESK, bytes(128 * 1024 + 1)),
        (200, f"GET {there}", DESK, b""),
        (200, f"POST {there}", DESK, b"news"),
        (204, f"DELETE {there}", DESK, b""),
    ):
        signed = sign_request(call, body, caller) if caller else [f"Authorization: Bearer {token}"]
        other = f"Cookie: idToken={token}\nHost: localhost\nConnection: close"
        head = "\n".join([f"{call} HTTP/1.1", other, *signed])
        assert (call, body, await stage.ask(head, body)) == (call, body, status)
    assert await peer.recv() == "news"
    assert await stage.closed(peer) == 1000


# The local system as its users run it


SRP = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning:pycognito")


@SRP
@pytest.mark.parametrize("mode", MODES)
def test_local_system_leaves_the_token_nowhere(
    mode: str, templates: dict[str, Path], canary: Canary, tmp_path: Path
) -> None:
    evidence = left_by_up(tmp_path, mode, canary, "--template", f"{templates[mode]}")

    assert canary.hits(evidence) == []
    assert {"aws.log", "up.json"} <= {Path(place).name for place in evidence}
    assert "connection rejected" in evidence["terminal"]


def left_by_up(folder: Path, mode: str, canary: Canary, *arguments: str) -> Evidence:
    """What `up` has printed, what is in its files and tables, and what its clients got for a token of its Cognito."""
    checkout = copy_project(folder / "project")
    with run_up(checkout, *arguments) as up:
        facts = up.state
        token = id_token(facts, canary)
        assert canary.is_in(token.encode())
        evidence = {"clients": use(up.port, mode, token, canary), "tables": tables(facts)}
        evidence |= {"up.json": json.dumps(facts)}
    return evidence | files(checkout.root / ".local") | {"terminal": up.command.output.read_text()}


def id_token(facts: dict[str, Any], canary: Canary) -> str:
    """Of a new user who has the marker for an attribute."""
    email, password = "canary@example.com", "correct-Horse-battery-1"
    users = Users(facts["cognito_url"], facts["user_pool_id"], facts["app_client_id"])
    users.add(email, password)
    users.cognito.admin_update_user_attributes(
        UserPoolId=users.user_pool_id,
        Username=email,
        UserAttributes=[{"Name": "locale", "Value": canary.marker}],
    )
    return canary.mark(users.get_id_token(email, password))


def use(port: int, mode: str, token: str, canary: Canary) -> str:
    """All that clients get, let in and not."""
    forged = canary.mark(f"{token[:-100]}{token[-100:].swapcase()}")
    (other,) = {*MODES} - {mode}
    with connect(**opening(port, mode, token)) as phone, connect(**opening(port, mode, token)) as laptop:
        got = [phone.response, laptop.response]
        for status, refused in (
            (429, opening(port, mode, token)),
            (403, opening(port, mode, forged)),
            (401, opening(port, other, token)),
        ):
            with pytest.raises(InvalidStatus) as refusal:
                connect(**refused)
            got.append(refusal.value.response)
            assert got[-1].status_code == status
        phone.send("hello")
        echo = phone.recv(PATIENCE_SECONDS)
    return f"{echo!r} {got}"


def opening(port: int, mode: str, token: str) -> dict[str, Any]:
    url = f"ws://127.0.0.1:{port}/prod"
    if mode == "querystring":
        return {"uri": f"{url}?idToken={token}"}
    return {"uri": url, "subprotocols": ["echo.v1", f"idToken.{token}"]}


def tables(facts: dict[str, Any]) -> str:
    dynamodb = client("dynamodb", facts["dynamodb_url"])
    return str([dynamodb.scan(TableName=name)["Items"] for name in dynamodb.list_tables()["TableNames"]])


def files(folder: Path) -> Evidence:
    return {f"{path}": path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()}


# Access logs

# What the stack may log of a request; none is anything that its client has sent, but for its address.
LOGGED = {
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


def unlisted(log_format: str) -> set[str]:
    return set(re.findall(r"\$[^\s\"',;|)}\]]*", log_format)) - LOGGED


def test_access_log_has_nothing_that_could_be_the_token(template: Template) -> None:
    (stage,) = (each for each in template.resources.values() if each["Type"] == "AWS::ApiGatewayV2::Stage")
    properties = stage["Properties"]

    assert unlisted(properties["AccessLogSettings"]["Format"]) == set()
    assert "DataTraceEnabled" not in json.dumps(properties)  # it would log requests whole


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
    assert unlisted(json.dumps(ACCESS_LOG_FORMAT | {"planted": variable})) != set()


# Images


@pytest.fixture
def build_folder(canary: Canary, mint: Mint, tmp_path: Path) -> Path:
    """The sources of the images, with a token in files that nobody has committed, some of them in build contexts."""
    shutil.copytree(ROOT / "images", tmp_path / "images")
    shutil.copy(ROOT / "docker-bake.hcl", tmp_path)
    for name in ("token", "images/.env", "images/authorizer/.env", "images/websocket/token.txt"):
        (tmp_path / name).write_text(f"ID_TOKEN={mint.valid()}\n")
    return tmp_path


def build(folder: Path, mint: Mint, *arguments: str, **environ: str) -> None:
    """`docker buildx` with tokens in the environment."""
    tokens = {name: mint.valid() for name in ("ID_TOKEN", "TOKEN", "AWS_SESSION_TOKEN")}
    command = ["docker", "buildx", *arguments]
    built = subprocess.run(
        command, cwd=folder, env=os.environ | tokens | environ, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr


@contextmanager
def saved(*images: str) -> Iterator[dict[str, bytes]]:
    """What is in images by name: their layers, configurations with their histories, and manifests."""
    try:
        archive = subprocess.run(["docker", "save", *images], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            files = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
            yield {name: unpacked(file.read()) for name, file in files.items() if file}
    finally:
        docker("rmi", *images)


def unpacked(octets: bytes) -> bytes:
    return gzip.decompress(octets) if octets.startswith(b"\x1f\x8b") else octets


def test_token_beside_the_build_does_not_get_into_an_image(build_folder: Path, mint: Mint, engine: None) -> None:
    tag = f"canary-{mint.canary.marker[:8]}"
    build(build_folder, mint, "bake", "--load", "default", TAG=tag)

    with saved(f"authorizer:{tag}", f"websocket:{tag}") as contents:
        assert [name for name, octets in contents.items() if mint.canary.is_in(octets)] == []
        assert b"awslambdaric" in b"".join(contents.values())


@pytest.mark.parametrize(
    "line",
    ["COPY images/.env /var/task/.env", "LABEL token={token}", "ENV TOKEN={token}", "COPY images /images"],
)
def test_token_planted_in_an_image_is_found(build_folder: Path, mint: Mint, engine: None, line: str) -> None:
    tag = f"planted:{mint.canary.marker[:8]}"
    lines = ["FROM scratch", "COPY docker-bake.hcl /", line.format(token=mint.valid()), ""]
    (build_folder / "Dockerfile").write_text("\n".join(lines))
    build(build_folder, mint, "build", "--load", f"--tag={tag}", ".")

    with saved(tag) as contents:
        assert [name for name, octets in contents.items() if mint.canary.is_in(octets)] != []


# Leaks on purpose

ID_TOKEN = 'event["queryStringParameters"]["idToken"]'
OFFERED = 'event["headers"]["Sec-WebSocket-Protocol"].split(", ")[-1]'


class Leak(NamedTuple):
    """Code at the beginning of a handler, and where it puts the token."""

    place: str
    function: str
    code: str
    log_format: str = "JSON"


Plant = Callable[[Leak], Path]


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Copies the functions' sources, with a leak, for all that runs functions; returns where."""

    def planted(leak: Leak) -> Path:
        sources = shutil.copytree(ROOT / "images", tmp_path / "images")
        (tmp_path / ".local").symlink_to(ROOT / ".local")
        module = sources / leak.function / f"{leak.function}.py"
        handler = r"(^ *)(def (?:handler|__call__)\(.*\n)"
        before, indent, line, after = re.split(handler, module.read_text(), flags=re.MULTILINE)
        module.write_text(f"{before}{indent}{line}{indent}    {leak.code}\n{after}")
        monkeypatch.setattr("tests.rie.conftest.ROOT", tmp_path)
        return sources

    return planted


def places(hits: list[str]) -> list[str]:
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
    plant: Plant, as_process: RunFunction, service: Service, mint: Mint, leak: Leak
) -> None:
    plant(leak)
    drag = Drag(with_traces, leak.log_format, "DEBUG", as_process, service)

    evidence = drag(leak.function, [CASES[leak.function](mint)[0], Case(LAST)])

    assert leak.place in places(mint.canary.hits(evidence))


@pytest.mark.parametrize(
    "leak",
    [
        Leak("log of function.websocket", "websocket", "print(event)"),
        Leak(
            "answers",
            "authorizer",
            f'return policy("Allow", event["methodArn"], principal_id="x", context={{"x": {ID_TOKEN}}})',
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
    plant: Plant, stage: MakeStage, mint: Mint, hear: Hear, leak: Leak
) -> None:
    sources = plant(leak)
    async with stage(Processes(sources, sources.parent / "snapshots")) as running:
        await running.open(mint.valid())

    assert leak.place in places(mint.canary.hits(hear(running)))


@SRP
def test_leak_planted_in_the_local_system_is_found(
    plant: Plant, templates: dict[str, Path], canary: Canary, tmp_path: Path
) -> None:
    stored = f'dynamodb.put_item(TableName=settings.connection_table, Item={{"connectionId": {{"S": "planted"}}, "token": {{"S": {ID_TOKEN}}}}})'
    sources = plant(Leak("terminal and tables", "websocket", f'if "headers" in event: print(event), {stored}'))
    arguments = ["--template", f"{templates['querystring']}", "--images", f"{sources}"]

    evidence = left_by_up(tmp_path, "querystring", canary, *arguments)

    assert places(canary.hits(evidence)) == ["tables", "terminal"]
