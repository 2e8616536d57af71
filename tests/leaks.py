"""A marked token, all that a client can do with it, and the places where it could come to light."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
import socket
import threading
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from botocore.credentials import Credentials
from joserfc.jwk import RSAKey
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from local.apigateway.server import GatewayServer
from local.aws.iam import Iam
from local.cloudformation.template import Template
from local.lambda_.containers import Containers
from local.lambda_.function import Function
from local.lambda_.invocation import Invocation
from local.lambda_.processes import Processes
from local.lambda_.runner import FunctionRunner
from local.lambda_.runtime_process import Launch
from tests.conftest import (
    APP_CLIENT_ID,
    EXECUTION_ENVIRONMENT,
    SUB,
    USER_POOL_ID,
    Answer,
    Event,
    LoopbackServer,
    Request,
    Sign,
    base64url,
    free_port,
    key_set,
    load_event,
    rs256,
)
from tests.rie.conftest import PATIENCE_SECONDS, SETTINGS, Emulator, Log, Run
from tests.rie.test_tracing import RuntimeApi, trace

WINDOW = 20  # so many characters of a token in a row are a leak
ENCODERS = (b64encode, urlsafe_b64encode)

Evidence = dict[str, str]  # what was said, by where
Claims = Mapping[str, object]


class Canary:
    """A marker and the tokens that carry it; finds both again, whole or in part, also URL-encoded or in base64."""

    def __init__(self) -> None:
        self.marker = secrets.token_hex(16)
        self._windows: set[str] = set()
        self.mark(self.marker)

    def mark(self, token: str) -> str:
        for spelling in spellings(token):
            self._windows.update(windows(spelling))
        return token

    def hits(self, evidence: Mapping[str, str]) -> list[str]:
        """Where something of it is, each with what leads up to it."""
        found = []
        for place, text in evidence.items():
            at = next((n for n, window in enumerate(windows(text)) if window in self._windows), None)
            if at is not None:
                found.append(f"{place}: {text[max(0, at - 200) : at + WINDOW]}…")
        return found

    def is_in(self, octets: bytes) -> bool:
        """Whether the whole marker is, for what is too large for `hits`; every token has it in its payload."""
        return any(spelling.encode() in octets for spelling in spellings(self.marker))


def windows(text: str) -> Iterator[str]:
    return (text[n : n + WINDOW] for n in range(len(text) - WINDOW + 1))


def spellings(text: str) -> set[str]:
    """As it is, with every character escaped as URLs may have it, and in base64 wherever in a longer text it begins.

    What URLs must have escaped is no part of a token.
    """
    octets = text.encode()
    escaped = "".join(f"%{octet:02X}" for octet in octets)
    return {text, escaped, *(spelt for encode in ENCODERS for spelt in base64_of(octets, encode))}


def base64_of(octets: bytes, encode: Callable[[bytes], bytes]) -> Iterator[str]:
    """Those characters that do not depend on what is before and behind."""
    for before in range(3):
        whole = octets[: len(octets) - (before + len(octets)) % 3]
        yield encode(bytes(before) + whole).decode()[(0, 2, 3)[before] :]


# What can be wrong with a token, and with an event


@dataclass(frozen=True)
class Mint:
    """Marked ID tokens, with the user pool's key or another."""

    canary: Canary
    sign: Sign
    key: RSAKey
    other_key: RSAKey

    def valid(self, **changes: object) -> str:
        return self.token(**{"cognito:groups": [GROUP], **changes})

    def token(self, **options: Any) -> str:
        """As `sign`, with the marker in a claim more."""
        return self.canary.mark(self.sign(**{"locale": self.canary.marker, **options}))

    def refused(self) -> Iterator[str]:
        """One for every reason there is to refuse a token; what nobody has verified has the marker all over."""
        marker = self.canary.marker
        everywhere = {"sub": marker, "email": f"{marker}@example.com", "cognito:groups": [marker]}
        yield self.token(key=self.other_key, **everywhere)
        yield self.token(key=self.other_key, header={"kid": self.key.kid}, **everywhere)
        yield self.token(**{"cognito:groups": [marker]})
        yield from (self.token(header=header, **everywhere) for header in self._headers())
        yield from (self.valid(**claims) for claims in self._claims())
        yield from map(self.canary.mark, self._malformed())

    def _headers(self) -> Iterator[Claims]:
        marker = self.canary.marker
        yield from ({"kid": kid} for kid in (marker, [marker], marker * 5, None))
        yield from ({"alg": alg} for alg in ("none", "HS256", marker))
        yield from ({name: marker} for name in ("crit", "jku", "typ", marker))

    def _claims(self) -> Iterator[Claims]:
        marker, now = self.canary.marker, int(time.time())
        yield from ({"iss": iss} for iss in (marker, f"https://{marker}.example", [marker], None))
        yield from ({"aud": aud} for aud in (marker, [APP_CLIENT_ID, marker], None))
        yield {"jti": [marker]}
        yield from ({"sub": sub} for sub in (f"{marker}\n", [marker], {marker: marker}, None))
        yield from ({"token_use": use} for use in (marker, ["id", marker], "access", None))
        yield from ({"exp": exp} for exp in (now - 60, marker, [marker], True, 1e300, None))
        yield from ({name: moment} for name in ("nbf", "iat") for moment in (now + 600, marker))
        yield {"auth_time": marker}

    def _malformed(self) -> Iterator[str]:
        marker = self.canary.marker
        good, token = json.dumps({"alg": "RS256", "kid": self.key.kid}), self.valid()
        payload = json.dumps({"locale": marker})
        yield from (rs256(self.key, good, bad) for bad in (marker, f'["{marker}"]', f"{payload[:-1]}, {payload[1:]}"))
        yield from (rs256(self.key, bad, payload) for bad in (marker, f'["{marker}"]', f"{good[:-1]}, {good[1:]}"))
        header, claims, signature = token.split(".")
        yield f"{header}.{claims}"
        yield f"{header}.{claims}."
        yield f"{header}.{claims}.{signature[:-20]}"
        yield f"{header}.{base64url(marker.encode() * 300)}.{signature}"
        yield f"{header}.\n{claims}.{signature}"
        yield from (f"{token}{more}" for more in ("=", "\0", f".{signature}"))
        yield f"Bearer {token}"


class Case(NamedTuple):
    """An event, and what is the matter with the services meanwhile."""

    event: Any
    fault: Answer | None = None


class Service(LoopbackServer):
    """The place of the keys, DynamoDB and `@connections`, which agree to everything, unless there is a fault."""

    def __init__(self, *keys: RSAKey) -> None:
        super().__init__(Answer(headers=AMZ_JSON, body=[b"{}"]))
        self.fault: Answer | None = None
        self._key_set = key_set(*keys)
        self._ended = threading.Event()

    def respond(self, request: Request) -> Answer:
        fault = None if self.fault in OF_POSTS and "/@connections/" not in request.path else self.fault
        if fault is HANGS:
            self._ended.wait()
        return fault or (self._key_set if request.path.endswith("/jwks.json") else self.answer)

    def __exit__(self, *exit_: object) -> None:
        self._ended.set()
        super().__exit__(*exit_)

    @property
    def calls(self) -> str:
        """What was asked of it; but not what clients were posted, who have sent that."""
        asked = (each._replace(body=b"") if "/@connections/" in each.path else each for each in self.requests)
        return "\n".join(str([*each]) for each in asked)

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which functions find it."""
        return {
            "AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER": self.url,
            "AWS_ENDPOINT_URL_DYNAMODB": self.url,
            "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": f"{self.url}/prod",
        }


def dynamodb_error(name: str, **members: object) -> Answer:
    error = {"__type": f"com.amazonaws.dynamodb.v20120810#{name}", "message": "so it is", **members}
    return Answer(400, [json.dumps(error).encode()], AMZ_JSON)


AMZ_JSON = {"Content-Type": "application/x-amz-json-1.0"}
BROKEN = Answer(500, [b"{}"])
GARBAGE = Answer(200, [b"<html>"])
HANGS = Answer()
DENIED = dynamodb_error("AccessDeniedException")
FULL = dynamodb_error("ConditionalCheckFailedException", Item={"slots": {"SS": ["9999999999 other"]}})
GONE = Answer(410, headers={"x-amzn-ErrorType": "GoneException"})
OF_POSTS = [GONE, *(Answer(status, [b"{}"]) for status in (400, 403, 413, 429))]

GROUP = "members"
ORIGIN = "https://app.example"
VARIABLES = {
    "authorizer": {
        "USER_POOL_ID": USER_POOL_ID,
        "APP_CLIENT_ID": APP_CLIENT_ID,
        "REQUIRED_GROUP": GROUP,
        "ALLOWED_ORIGINS": ORIGIN,
    },
    "websocket": {
        "CONNECTION_TABLE_NAME": "connections",
        "USER_TABLE_NAME": "users",
        "MAX_CONNECTIONS_PER_USER": "2",
        "CALLBACK_URL": "https://api.invalid/prod",
    },
}
PARTS = ("queryStringParameters", "headers")
LAST = 1  # an event whose error is no other's, by which one sees that the log is complete


def presented(event: Event, token: str, *, origin: str | None = ORIGIN) -> Event:
    """An event of a client that sends its token in every way that there is."""
    headers = {
        "Authorization": f"Bearer {token}",
        "Cookie": f"idToken={token}",
        **({"Origin": origin} if origin else {}),
        "Sec-WebSocket-Protocol": f"echo.v1, idToken.{token}",
        "User-Agent": token,
    }
    query = {"idToken": token, "token": token}
    return event | {
        "headers": event["headers"] | headers,
        "multiValueHeaders": event["multiValueHeaders"] | {name: [value] for name, value in headers.items()},
        "queryStringParameters": query,
        "multiValueQueryStringParameters": {name: [value] for name, value in query.items()},
    }


def authorizer_cases(mint: Mint) -> list[Case]:
    """The first is let in, the others are not."""
    event, token, marker = load_event("authorizer"), mint.valid(), mint.canary.marker
    good = presented(event, token)
    bare = good | {"headers": {"Origin": ORIGIN}, "queryStringParameters": {}}
    several = {"Origin": ORIGIN, "Sec-WebSocket-Protocol": f"idToken.{token}, idToken.{token}"}
    odd: list[Any] = [
        presented(event, token, origin=None),
        presented(event, token, origin=f"https://{marker}.example"),
        bare,
        bare | {"headers": several, "multiValueQueryStringParameters": {"idToken": [token, marker]}},
        bare | {"multiValueHeaders": {"Origin": [ORIGIN, marker]}},
        *(bare | {part: {"Origin": ORIGIN, "idToken": each}} for part in PARTS for each in ([token], {token: token})),
        *(bare | {part: each} for part in PARTS for each in (token, [token], {token: token}, None)),
        *(bare | {"requestContext": each} for each in (token, [token], None)),
        {name: value for name, value in bare.items() if name != "methodArn"},
        [good],
        token,
    ]
    return [Case(each) for each in (good, *(presented(event, each) for each in mint.refused()), *odd, LAST)]


def websocket_cases(mint: Mint) -> list[Case]:
    """Of clients who also say their token, and give it as the reason why they leave."""
    token = mint.valid()
    opened, left = presented(load_event("connect"), token), load_event("disconnect", disconnectReason=token)
    expired = {"userId": SUB, "principalId": SUB, "exp": str(int(time.time()) - 60)}
    said, said_late = load_event("default", body=token), load_event("default", body=token, authorizer=expired)
    return [
        *(Case(opened, fault) for fault in (None, BROKEN, GARBAGE, DENIED, FULL)),
        *(Case(opened | {"headers": {"Sec-WebSocket-Protocol": offer}}) for offer in (f"idToken.{token}", [token])),
        Case(opened | {"headers": token}),
        Case(opened | {"requestContext": {"routeKey": "$connect", "connectionId": "L0SM9cOFvHcCIhw="}}),
        *(Case(said, fault) for fault in (None, BROKEN, GARBAGE, *OF_POSTS)),
        *(Case(said | {"body": each}) for each in (token * 200, f"{token}\ud800", [token], {token: token})),
        *(Case(said_late, fault) for fault in (None, BROKEN, GONE)),
        *(Case(left, fault) for fault in (None, BROKEN, GARBAGE, DENIED)),
        Case(token),
        Case([token]),
        Case(LAST),
    ]


CASES = {"authorizer": authorizer_cases, "websocket": websocket_cases}


# Functions in Lambda's runtime


def behind_emulator(
    run: Run, function: str, environ: dict[str, str], cases: Iterable[Case], service: Service
) -> Evidence:
    invocations, runtime_api = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    arguments = [f"--runtime-interface-emulator-address={invocations}", f"--runtime-api-address={runtime_api}"]
    with run(function, arguments, EXECUTION_ENVIRONMENT | SETTINGS | environ) as log:
        emulator = Emulator(f"http://{invocations}", log)
        emulator.wait_until_ready()
        answers = answered(lambda event: emulator.post(event).data.decode(), cases, service)
        return {"answers": "\n".join(answers), "log": completed(log, answers[-1]), "calls": service.calls}


def with_traces(run: Run, function: str, environ: dict[str, str], cases: Iterable[Case], service: Service) -> Evidence:
    """Without the emulator, which gives none."""
    with RuntimeApi() as runtime_api, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.setblocking(False)
        addresses = {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{runtime_api.server_port}",
            "AWS_XRAY_DAEMON_ADDRESS": f"127.0.0.1:{daemon.getsockname()[1]}",
        }
        segments: list[str] = []

        def invoke(event: object) -> str:
            answer = json.dumps(runtime_api.invoke(event, trace("a", sampled=True)))
            segments.extend(datagrams(daemon))
            return answer

        with run(function, [], EXECUTION_ENVIRONMENT | SETTINGS | environ | addresses) as log:
            answers = answered(invoke, cases, service)
            return {
                "answers": "\n".join(str([*each]) for each in runtime_api.requests),
                "log": completed(log, answers[-1]),
                "traces": "\n".join(segments),
                "calls": service.calls,
            }


def answered(invoke: Callable[[object], str], cases: Iterable[Case], service: Service) -> list[str]:
    answers = []
    for case in cases:
        service.fault = case.fault
        answers.append(invoke(case.event))
    return answers


def datagrams(daemon: socket.socket) -> Iterator[str]:
    while True:
        try:
            yield daemon.recv(65536).decode()
        except BlockingIOError:
            return


def completed(log: Log, last_answer: str) -> str:
    """The log, as soon as the last invocation's error is in it."""
    error = json.loads(last_answer)["errorMessage"] if last_answer.startswith("{") else TIMED_OUT
    deadline = time.monotonic() + PATIENCE_SECONDS
    while error not in log():
        assert time.monotonic() < deadline, log()
        time.sleep(0.02)
    return log()


TIMED_OUT = "Reset initiated: Timeout"  # the emulator's own words


# The gateway with both functions behind it


@dataclass
class Stage:
    """A gateway that listens, what its clients got from it, and what its functions told it."""

    template: Template
    launcher: Containers | Processes
    service: Service
    got: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    launches: dict[str, Launch] = field(default_factory=dict)
    runners: dict[str, FunctionRunner] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        self.launches = await self.launcher.prepare(set(CASES))
        self.iam = Iam()
        stack = self.template.resolve()
        self.server = GatewayServer(stack.api, self.invoke, iam=self.iam)
        self.port = await self.server.start()
        await asyncio.gather(*(self.run(function) for function in stack.functions.values()))
        return self

    async def __aexit__(self, *_: object) -> None:
        """As the local system does: `$disconnect` is run before the functions end."""
        self.service.fault = None
        await self.server.stop()
        await asyncio.gather(*(runner.stop() for runner in self.runners.values()))
        await self.launcher.stop()

    async def run(self, function: Function) -> None:
        session = self.iam.open_session(function.target, function.role, function.arn)
        self.function = Credentials(session.access_key_id, session.secret_access_key, session.session_token)
        callback = {"AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": f"http://127.0.0.1:{self.port}/prod"}
        ours = VARIABLES[function.target] | self.service.environment | callback
        environment = EXECUTION_ENVIRONMENT | session.environment() | ours
        runner = FunctionRunner(function, self.launches[function.target], environment, concurrency=1)
        self.runners[function.target] = runner
        await runner.start()

    async def restart(self, target: str) -> None:
        await self.runners[target].stop()
        await self.run(self.runners[target].function)

    @asynccontextmanager
    async def hanging(self, target: str) -> AsyncIterator[None]:
        """The function waits for an answer until its time is over."""
        runner = self.runners[target]
        function = runner.function
        await runner.replace(runner.launch, dataclasses.replace(function, timeout_seconds=0.5))
        self.service.fault = HANGS
        yield
        self.service.fault = None
        await runner.replace(runner.launch, function)

    async def invoke(self, function_arn: str, event: Event) -> Invocation:
        self.connection_id = event["requestContext"]["connectionId"]
        (runner,) = (each for each in self.runners.values() if each.function.arn == function_arn)
        answer = await runner.invoke(event)
        self.answers.append(str(answer))
        return answer

    async def open(self, token: str, *, but_where_it_belongs: bool = False) -> ClientConnection | int:
        """The connection of a client that sends its token in every way there is, or its refusal's status."""
        route = self.server.api.routes["$connect"]
        assert route.authorizer
        (left_out,) = route.authorizer.identity_sources if but_where_it_belongs else ("",)
        query = "?" if "querystring" in left_out else f"?idToken={token}&"
        offered = None if "header" in left_out else [Subprotocol(name) for name in ("echo.v1", f"idToken.{token}")]
        try:
            peer = await connect(
                f"ws://127.0.0.1:{self.port}/prod{query}token={token}",
                subprotocols=offered,
                origin=Origin(ORIGIN),
                additional_headers={"Authorization": f"Bearer {token}", "Cookie": f"idToken={token}"},
            )
        except InvalidStatus as error:
            self.got.append(f"{[*error.response.headers.raw_items()]} {error.response.body!r}")
            return error.response.status_code
        assert peer.response
        self.got.append(str([*peer.response.headers.raw_items()]))
        return peer

    async def opened(self, token: str) -> ClientConnection:
        peer = await self.open(token)
        assert isinstance(peer, ClientConnection), f"refused with {peer}"
        return peer

    async def say(self, peer: ClientConnection, message: str) -> Any:
        """Returns what comes back."""
        await peer.send(message)
        async with asyncio.timeout(PATIENCE_SECONDS):
            self.got.append(str(await peer.recv()))
        return json.loads(self.got[-1])

    async def closed(self, peer: ClientConnection) -> int | None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await peer.wait_closed()
        self.got.append(f"{peer.close_code} {peer.close_reason}")
        return peer.close_code

    async def ask(self, head: str, body: bytes = b"") -> int:
        """The status of the answer to a request that no WebSocket client makes; 0 if nobody answers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        length = [f"Content-Length: {len(body)}"] if body else []
        writer.write("\r\n".join([*head.split("\n"), *length, "", ""]).encode() + body)
        async with asyncio.timeout(PATIENCE_SECONDS):
            self.got.append((await reader.read()).decode())
        writer.close()
        return int(self.got[-1].split()[1]) if self.got[-1] else 0
