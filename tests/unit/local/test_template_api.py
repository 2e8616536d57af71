"""The API that is read from a template: its routes, its stage, and the functions that API Gateway may invoke."""

from __future__ import annotations

from typing import Any

import pytest

from local.apigateway.api import Authorizer, Route, Throttle
from local.errors import TemplateError
from tests.fixtures.templates import (
    LAMBDA_ARN,
    Read,
    Resource,
    arn,
    authorizer,
    build_resources,
    integration,
    resource,
    route,
    stage,
)

ROOMS, GUARD = f"{LAMBDA_ARN}:Chat-Rooms", f"{LAMBDA_ARN}:Chat-Guard"
ACCOUNT_THROTTLE = Throttle(rate=10_000, burst=5_000)


# Routes


def test_every_route_leads_to_its_function(read: Read) -> None:
    routes = read(**build_resources()).read_api().routes

    guard = Authorizer(GUARD, ("route.request.header.Auth", "route.request.querystring.room"), id="Chat-Door")
    assert routes == {
        "$connect": Route("$connect", ROOMS, guard),
        "joinRoom": Route("joinRoom", ROOMS, None),
        "report": Route("report", GUARD, None),
    }


def test_api_needs_no_connect_route(read: Read) -> None:
    without = {name: part for name, part in build_resources().items() if name not in {"Connect", "Door"}}

    assert read(**without).read_api().routes.keys() == {"joinRoom", "report"}


def test_messages_are_routed_by_their_action_unless_the_api_says_otherwise(read: Read) -> None:
    ours, others = build_resources(Socket=resource("ApiGatewayV2::Api", ProtocolType="WEBSOCKET")), build_resources()

    expressions = [read(**each).read_api().route_selection_expression for each in (ours, others)]

    assert expressions == ["$request.body.action", "$request.body.service.do"]


def test_authorizer_may_have_no_identity_source(read: Read) -> None:
    route = read(**build_resources(Door=authorizer())).read_api().routes["$connect"]

    assert route.authorizer == Authorizer(GUARD, (), id="Chat-Door")


def test_route_waits_as_long_as_its_integration_says_or_29_seconds(read: Read) -> None:
    routes = read(**build_resources(ToRooms=integration("Rooms", TimeoutInMillis=1500))).read_api().routes

    assert (routes["joinRoom"].timeout_seconds, routes["report"].timeout_seconds) == (1.5, 29)


def answer(route: str, key: str = "$default") -> Resource:
    return resource("ApiGatewayV2::RouteResponse", RouteId={"Ref": route}, RouteResponseKey=key)


TWO_WAY = {"RouteResponseSelectionExpression": "$default"}


@pytest.mark.parametrize(
    ("changes", "two_way"),
    [
        ({"Join": route("joinRoom", "ToRooms", **TWO_WAY), "Answer": answer("Join")}, True),
        ({"Join": route("joinRoom", "ToRooms", **TWO_WAY)}, False),
        ({"Answer": answer("Join")}, False),
        ({"Join": route("joinRoom", "ToRooms", **TWO_WAY), "Answer": answer("Report")}, False),
        ({}, False),
    ],
    ids=["both", "expression only", "response only", "response of another", "neither"],
)
def test_two_way_route_has_an_expression_and_a_response(
    read: Read, changes: dict[str, Resource], two_way: bool
) -> None:
    """https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-route-response.html."""
    routes = read(**build_resources(**changes)).read_api().routes

    assert routes["joinRoom"].two_way is two_way
    assert not routes["report"].two_way


@pytest.mark.parametrize(
    "changes",
    [
        {"Join": route("joinRoom", "ToRooms", RouteResponseSelectionExpression="other")},
        {"Join": route("joinRoom", "ToRooms", **TWO_WAY), "Answer": answer("Join", "other")},
    ],
    ids=["expression", "response"],
)
def test_route_response_other_than_the_default_is_named(read: Read, changes: dict[str, Resource]) -> None:
    with pytest.raises(TemplateError, match=r"^Join: route response other does not exist"):
        read(**build_resources(**changes)).read_api()


# The stage


def test_api_is_reached_by_its_stage_and_its_own_id(read: Read) -> None:
    api = read(**build_resources()).read_api()

    assert api.stage == "beta"
    assert api.domain_name == f"{api.id}.execute-api.us-east-1.amazonaws.com"
    assert api.arn == f"arn:aws:execute-api:us-east-1:000000000000:{api.id}/beta"


def test_stage_variables_are_resolved(read: Read) -> None:
    variables = {"tenant": "acme", "function": {"Ref": "Rooms"}}

    api = read(**build_resources(Beta=stage(StageVariables=variables))).read_api()

    assert api.stage_variables == {"tenant": "acme", "function": "Chat-Rooms"}
    assert read(**build_resources()).read_api().stage_variables == {}


@pytest.mark.parametrize(
    ("deployment", "deployed"),
    [
        ({"AutoDeploy": True}, True),
        ({"DeploymentId": {"Ref": "First"}}, True),
        ({"AutoDeploy": False}, False),
        ({}, False),
    ],
    ids=["by itself", "by hand", "neither", "nothing said"],
)
def test_stage_is_deployed_by_itself_or_by_hand(read: Read, deployment: dict[str, object], deployed: bool) -> None:
    first = resource("ApiGatewayV2::Deployment", ApiId={"Ref": "Socket"})

    api = read(**build_resources(Beta=stage(**deployment), First=first)).read_api()

    assert api.deployed is deployed


SLOW = {"ThrottlingRateLimit": 10, "ThrottlingBurstLimit": 5, "DetailedMetricsEnabled": True, "LoggingLevel": "INFO"}


@pytest.mark.parametrize(
    ("settings", "joining", "reporting"),
    [
        ({}, ACCOUNT_THROTTLE, ACCOUNT_THROTTLE),
        ({"DefaultRouteSettings": {"LoggingLevel": "OFF"}}, ACCOUNT_THROTTLE, ACCOUNT_THROTTLE),
        ({"DefaultRouteSettings": SLOW}, Throttle(10, 5), Throttle(10, 5)),
        ({"RouteSettings": {"joinRoom": SLOW}}, Throttle(10, 5), ACCOUNT_THROTTLE),
        (
            {"DefaultRouteSettings": SLOW, "RouteSettings": {"joinRoom": {"ThrottlingRateLimit": 0.5}}},
            Throttle(0.5, 5),
            Throttle(10, 5),
        ),
    ],
    ids=["none", "other settings", "all routes", "one route", "all but one"],
)
def test_routes_are_throttled_by_their_own_settings_or_the_stages(
    read: Read, settings: dict[str, Any], joining: Throttle, reporting: Throttle
) -> None:
    routes = read(**build_resources(Beta=stage(**settings))).read_api().routes

    assert (routes["joinRoom"].throttle, routes["report"].throttle) == (joining, reporting)


# Permissions


def permission(function: object, **changes: object) -> Resource:
    properties = {"Action": "lambda:InvokeFunction", "Principal": "apigateway.amazonaws.com"}
    return resource("Lambda::Permission", FunctionName=function, **properties | changes)


def source(pattern: str) -> Resource:
    """Return a SourceArn with this pattern, e.g. `*$connect` for the route of any stage."""
    return {"Fn::Sub": f"arn:aws:execute-api:${{AWS::Region}}:${{AWS::AccountId}}:${{Socket}}/{pattern}"}


@pytest.mark.parametrize("named", [{"Ref": "Rooms"}, arn("Rooms"), "Chat-Rooms"], ids=["name", "ARN", "text"])
@pytest.mark.parametrize("action", ["lambda:InvokeFunction", "lambda:*"])
def test_permission_is_for_its_function(read: Read, named: object, action: str) -> None:
    api = read(**build_resources(May=permission(named, Action=action))).read_api()

    assert api.may_invoke(ROOMS, f"{api.arn}/joinRoom")
    assert not api.may_invoke(GUARD, f"{api.arn}/joinRoom")


@pytest.mark.parametrize(
    ("pattern", "route_key", "allowed"),
    [
        ("*joinRoom", "joinRoom", True),
        ("beta/joinRoom", "joinRoom", True),
        ("*", "joinRoom", True),
        ("*$connect", "$connect", True),
        ("*$connect", "joinRoom", False),
        ("prod/joinRoom", "joinRoom", False),
        ("authorizers/*", "joinRoom", False),
    ],
)
def test_permission_is_for_its_source(read: Read, pattern: str, route_key: str, allowed: bool) -> None:
    api = read(**build_resources(May=permission({"Ref": "Rooms"}, SourceArn=source(pattern)))).read_api()

    assert api.may_invoke(ROOMS, f"{api.arn}/{route_key}") is allowed


@pytest.mark.parametrize(
    "changes",
    [{"Principal": "events.amazonaws.com"}, {"Action": "lambda:GetFunction"}, {"SourceAccount": "111111111111"}],
    ids=["another service", "another action", "another account"],
)
def test_permission_of_something_else_permits_nothing(read: Read, changes: dict[str, object]) -> None:
    api = read(**build_resources(May=permission({"Ref": "Rooms"}, **changes))).read_api()

    assert not api.may_invoke(ROOMS, f"{api.arn}/joinRoom")


def test_template_without_permissions_permits_nothing(read: Read) -> None:
    api = read(**build_resources()).read_api()

    assert not api.may_invoke(ROOMS, f"{api.arn}/joinRoom")
