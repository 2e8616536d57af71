"""What is read from the whole template of another application, which is unlike our stack."""

from __future__ import annotations

from pathlib import Path

from local.apigateway.api import Api, Authorizer, Route, Throttle
from local.aws.iam import Role, Statement
from local.cloudformation.template import Template
from local.lambda_.function import Function

TEMPLATE = Path(__file__).parent / "templates" / "chat.template.json"
LAMBDA = "arn:aws:lambda:us-east-1:000000000000:function:chat-"
DOOR, ROOMS, HISTORY = f"{LAMBDA}DoorFunction", f"{LAMBDA}RoomFunction", f"{LAMBDA}HistoryFunction"
EXECUTE = "arn:aws:execute-api:us-east-1:000000000000:localapi00"
TABLE = "arn:aws:dynamodb:us-east-1:000000000000:table/chat-rooms"


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
        stage_variables={"tenant": "acme", "table": "chat-rooms"},
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
