"""Another application's template, unlike our stack: what is read from it, and real clients of its gateway."""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from local.apigateway.api import ACCOUNT_THROTTLE, Api, Authorizer, Route, Throttle
from local.apigateway.events import Event
from local.apigateway.server import GatewayServer
from local.aws.iam import Role, Statement
from local.cloudformation.template import Template
from local.errors import TemplateError
from local.lambda_.function import Function
from local.lambda_.invocation import Invocation
from tests.fixtures.gateway import PATIENCE_SECONDS, Listen, receive

TEMPLATE = Path(__file__).parent / "templates" / "chat.template.json"
DOCUMENT = json.loads(TEMPLATE.read_text())
LAMBDA = "arn:aws:lambda:us-east-1:000000000000:function:chat-"
DOOR, ROOMS, HISTORY = f"{LAMBDA}DoorFunction", f"{LAMBDA}RoomFunction", f"{LAMBDA}HistoryFunction"
EXECUTE = "arn:aws:execute-api:us-east-1:000000000000:localapi00"
TABLE = "arn:aws:dynamodb:us-east-1:000000000000:table/chat-rooms"
TICKET: dict[str, Any] = {"additional_headers": {"X-Tenant": "acme"}, "query": "?ticket=1"}
STAGE_VARIABLES = {"tenant": "acme", "table": "chat-rooms"}
WITHOUT_CONNECT: dict[str, Any] = {
    "Connect": None,
    "Door": None,
    "DoorFunction": None,
    "DoorRole": None,
    "MayAskDoor": None,
}

Changed = Callable[..., Template]


@pytest.fixture
def changed(tmp_path: Path) -> Changed:
    """Reads the template with resources added or replaced, or left out if None."""

    def written(**resources: dict[str, Any] | None) -> Template:
        path = tmp_path / TEMPLATE.name
        kept = {name: each for name, each in {**DOCUMENT["Resources"], **resources}.items() if each is not None}
        path.write_text(json.dumps({**DOCUMENT, "Resources": kept}))
        return Template.read(path)

    return written


def with_(logical_id: str, **properties: Any) -> dict[str, dict[str, Any]]:
    """The resource with properties added, replaced, or left out if None."""
    resource = DOCUMENT["Resources"][logical_id]
    merged = {**resource["Properties"], **properties}
    return {logical_id: {**resource, "Properties": {name: v for name, v in merged.items() if v is not None}}}


# What is read


def test_api_has_its_routes_stage_and_permissions() -> None:
    stage_throttle = Throttle(rate=50, burst=20)
    door = Authorizer(DOOR, ("route.request.header.X-Tenant", "route.request.querystring.ticket"), "chat-Door")

    assert Template.read(TEMPLATE).read_api() == Api(
        id="localapi00",
        stage="v1",
        route_selection_expression="${request.body.service}/${request.body.op}",
        routes={
            "$connect": Route("$connect", ROOMS, door, throttle=stage_throttle),
            "$disconnect": Route("$disconnect", ROOMS, throttle=stage_throttle),
            "rooms/post": Route("rooms/post", ROOMS, throttle=Throttle(rate=0.1, burst=1)),
            "rooms/list": Route("rooms/list", ROOMS, two_way=True, throttle=stage_throttle),
            "history/read": Route("history/read", HISTORY, timeout_seconds=0.25, throttle=Throttle(rate=50, burst=5)),
        },
        stage_variables=STAGE_VARIABLES,
        deployed=True,
        permissions=frozenset(
            {
                (DOOR, f"{EXECUTE}/authorizers/chat-Door"),
                (ROOMS, f"{EXECUTE}/*"),
                (HISTORY, f"{EXECUTE}/v1/history/*"),
            }
        ),
    )


def test_functions_have_their_settings_and_what_their_roles_allow() -> None:
    read = Statement("Allow", ("dynamodb:Query",), (TABLE, f"{TABLE}/index/*"))
    write = Statement("Allow", ("dynamodb:PutItem", "dynamodb:UpdateItem"), (TABLE,))
    post = Statement("Allow", ("execute-api:ManageConnections",), (f"{EXECUTE}/v1/*/@connections/*",))
    deny = Statement("Deny", ("dynamodb:*", "execute-api:*", "logs:*"), ("*",), not_action=True)
    url = "https://localapi00.execute-api.us-east-1.amazonaws.com/v1"

    assert Template.read(TEMPLATE).resolve().functions == {
        DOOR: Function("chat-DoorFunction", DOOR, "door", {}, 3, 128, {}, Role("chat-DoorRole", ())),
        ROOMS: Function(
            "chat-RoomFunction",
            ROOMS,
            "rooms",
            environment={"TABLE": "chat-rooms", "CALLBACK": url},
            timeout_seconds=20,
            memory_mb=1024,
            logging={},
            role=Role("chat-RoomRole", (write, post, deny, read)),
        ),
        HISTORY: Function(
            "chat-HistoryFunction", HISTORY, "history", {}, 3, 128, {}, Role("chat-HistoryRole", (read,))
        ),
    }


def test_api_without_connect_keeps_the_rest(changed: Changed) -> None:
    with_connect, without = Template.read(TEMPLATE), changed(**WITHOUT_CONNECT)

    assert without.read_api().routes == {
        key: r for key, r in with_connect.read_api().routes.items() if key != "$connect"
    }
    assert without.resolve().functions.keys() == {ROOMS, HISTORY}


def test_stage_without_throttles_has_those_of_the_account(changed: Changed) -> None:
    api = changed(**with_("V1", DefaultRouteSettings=None, RouteSettings=None)).read_api()

    assert {route.throttle for route in api.routes.values()} == {ACCOUNT_THROTTLE}


@pytest.mark.parametrize("by_reference", [True, False])
def test_function_is_known_by_its_own_name(changed: Changed, by_reference: bool) -> None:
    function = with_("RoomFunction", FunctionName="lobby")
    permission = {} if by_reference else with_("MayInvokeRooms", FunctionName="lobby")

    template = changed(**function, **permission)

    lobby = "arn:aws:lambda:us-east-1:000000000000:function:lobby"
    assert "lobby" in {each.name for each in template.resolve().functions.values()}
    assert template.read_api().may_invoke(lobby, f"{EXECUTE}/v1/rooms/list")


def test_role_is_known_by_its_own_name(changed: Changed) -> None:
    template = changed(**with_("HistoryRole", RoleName="archivist"), **with_("ReadRooms", Roles=["archivist"]))

    role = template.resolve().functions[HISTORY].role
    assert (role.name, len(role.statements)) == ("archivist", 1)


# Its gateway


@dataclass
class Backend:
    """The template's functions in this process. The authorizer `door` allows everybody; `history` always times out."""

    answers: dict[str, Invocation] = field(default_factory=dict)
    invoked: list[tuple[str, str]] = field(default_factory=list)
    events: defaultdict[str, asyncio.Queue[Event]] = field(default_factory=lambda: defaultdict(asyncio.Queue))

    async def invoke(self, function_arn: str, event: Event) -> Invocation:
        key = event["requestContext"]["routeKey"]
        self.invoked.append((function_arn, key))
        self.events["door" if function_arn == DOOR else key].put_nowait(event)
        if function_arn == DOOR:
            return Invocation(ALLOW)
        if function_arn == HISTORY:
            await asyncio.sleep(PATIENCE_SECONDS)
        return self.answers.get(key, Invocation({"statusCode": 200, "body": key}))

    async def event(self, name: str) -> Event:
        """Return the next event of a route, or of the authorizer."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.events[name].get()


STATEMENT = {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": f"{EXECUTE}/v1/*"}
ALLOW = {"principalId": "ada", "policyDocument": {"Version": "2012-10-17", "Statement": STATEMENT}}


@dataclass(frozen=True)
class Gateway:
    """A gateway with the functions that it invokes."""

    server: GatewayServer
    backend: Backend
    port: int

    async def connect(self, *, query: str = "", **options: Any) -> ClientConnection:
        return await connect(f"ws://127.0.0.1:{self.port}/v1{query}", **options)

    async def refusal(self, **options: Any) -> int:
        with pytest.raises(InvalidStatus) as refused:
            await self.connect(**options)
        return refused.value.response.status_code


Start = Callable[..., Awaitable[Gateway]]


@pytest.fixture
def start(listen: Listen) -> Start:
    """Starts the gateway of the template, or of a changed one, and stops it after the test."""

    async def starting(template: Template | None = None) -> Gateway:
        backend = Backend()
        server, port = await listen((template or Template.read(TEMPLATE)).read_api(), backend.invoke)
        return Gateway(server, backend, port)

    return starting


def message(service: str, op: str) -> str:
    return json.dumps({"service": service, "op": op})


@pytest.mark.parametrize(
    ("service", "op", "function"), [("rooms", "post", ROOMS), ("rooms", "list", ROOMS), ("history", "read", HISTORY)]
)
async def test_message_is_routed_by_its_service_and_operation(
    start: Start, service: str, op: str, function: str
) -> None:
    gateway = await start()
    async with await gateway.connect(**TICKET) as peer:
        await peer.send(message(service, op))

        assert (await gateway.backend.event(f"{service}/{op}"))["body"] == message(service, op)
        assert gateway.backend.invoked[2:] == [(function, f"{service}/{op}")]


async def test_two_way_route_answers_and_the_others_are_silent(start: Start) -> None:
    gateway = await start()
    gateway.backend.answers["rooms/list"] = Invocation({"statusCode": 404, "body": "[]"})
    async with await gateway.connect(**TICKET) as peer:
        await peer.send(message("rooms", "post"))
        await gateway.backend.event("rooms/post")
        for _ in range(2):
            await peer.send(message("rooms", "list"))

        assert [await receive(peer), await receive(peer)] == ["[]", "[]"]


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"query": "?ticket=1"},
        {"additional_headers": {"X-Tenant": "acme"}},
        {"query": "?ticket=", "additional_headers": {"X-Tenant": "acme"}},
        {"query": "?ticket=1", "additional_headers": {"X-Tenant": ""}},
        {"query": "?x-tenant=acme", "additional_headers": {"ticket": "1"}},
    ],
    ids=str,
)
async def test_authorizer_is_invoked_only_with_both_identity_sources(start: Start, sent: dict[str, Any]) -> None:
    gateway = await start()

    assert await gateway.refusal(**sent) == 401
    assert gateway.backend.invoked == []


async def test_authorizer_is_invoked_once_before_connect(start: Start) -> None:
    gateway = await start()

    async with await gateway.connect(**TICKET):
        assert gateway.backend.invoked == [(DOOR, "$connect"), (ROOMS, "$connect")]


async def test_every_event_carries_the_stage_variables(start: Start) -> None:
    gateway = await start()

    async with await gateway.connect(**TICKET) as peer:
        await peer.send(message("rooms", "post"))
    events = [await gateway.backend.event(name) for name in ("door", "$connect", "rooms/post", "$disconnect")]

    assert [event["stageVariables"] for event in events] == [STAGE_VARIABLES] * 4


@pytest.mark.parametrize("body", [message("rooms", "burn"), '{"service": "rooms"}', "{}", "[]", "hello", ""])
async def test_message_without_a_route_is_forbidden(start: Start, body: str) -> None:
    gateway = await start()
    async with await gateway.connect(**TICKET) as peer:
        await peer.send(body)

        assert re.fullmatch(FRAME.format("Forbidden"), await receive(peer))


FRAME = r'{{"message": "{}", "connectionId":"[\w-]{{15}}=", "requestId":"[\w-]{{15}}="}}'


async def test_route_is_throttled_by_its_own_settings(start: Start) -> None:
    gateway = await start()
    async with await gateway.connect(**TICKET) as peer:
        for _ in range(2):
            await peer.send(message("rooms", "post"))
        refused = await receive(peer)
        await peer.send(message("rooms", "list"))

        assert re.fullmatch(FRAME.format("Too Many Requests"), refused)
        assert await receive(peer) == "rooms/list"


async def test_route_waits_only_as_long_as_its_integration_says(start: Start) -> None:
    gateway = await start()
    async with await gateway.connect(**TICKET) as peer:
        await peer.send(message("history", "read"))

        assert re.fullmatch(FRAME.format("Endpoint request timed out"), await receive(peer))


async def test_function_without_permission_for_the_gateway_is_not_invoked(start: Start, changed: Changed) -> None:
    gateway = await start(changed(MayInvokeHistory=None))
    async with await gateway.connect(**TICKET) as peer:
        await peer.send(message("history", "read"))

        assert re.fullmatch(FRAME.format("Internal server error"), await receive(peer))
    assert (HISTORY, "history/read") not in gateway.backend.invoked
    (advice,) = gateway.server.iam.advice
    assert advice.endswith(f"add an AWS::Lambda::Permission with SourceArn {EXECUTE}/v1/history/read")


async def test_everybody_may_connect_where_there_is_no_connect_route(start: Start, changed: Changed) -> None:
    gateway = await start(changed(**WITHOUT_CONNECT))

    async with await gateway.connect() as peer:
        await peer.send(message("rooms", "list"))
        answer = await receive(peer)

    assert (answer, gateway.backend.invoked[0]) == ("rooms/list", (ROOMS, "rooms/list"))


async def test_stage_without_a_deployment_refuses_handshakes(start: Start, changed: Changed) -> None:
    gateway = await start(changed(**with_("V1", DeploymentId=None)))

    assert await gateway.refusal(**TICKET) == 403
    assert gateway.backend.invoked == []


def test_identity_source_of_an_http_api_is_refused_by_name(changed: Changed) -> None:
    """`$request.` is the spelling of HTTP APIs, `route.request.` that of WebSocket APIs."""
    template = changed(**with_("Door", IdentitySource=["$request.header.Authorization"]))

    with pytest.raises(TemplateError, match=r"^Door: identity source \$request\.header\.Authorization "):
        template.read_api()
