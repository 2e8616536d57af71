"""Parts of templates, as resources of CloudFormation."""

from __future__ import annotations

from typing import Any

Resource = dict[str, Any]

LAMBDA_ARN = "arn:aws:lambda:us-east-1:000000000000:function"


def resource(type_: str, **properties: object) -> Resource:
    return {"Type": f"AWS::{type_}", "Properties": properties}


def arn(logical_id: str) -> Resource:
    return {"Fn::GetAtt": [logical_id, "Arn"]}


def role(**properties: object) -> Resource:
    return resource("IAM::Role", **properties)


def function(target: str, **properties: object) -> Resource:
    """A function of the role `Role`, unless told otherwise."""
    return {**resource("Lambda::Function", **{"Role": arn("Role"), **properties}), "Metadata": {"BakeTarget": target}}


def invocation(logical_id: str) -> Resource:
    """The URI by which API Gateway invokes a function of the template."""
    path = "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions"
    return {"Fn::Sub": f"{path}/${{{logical_id}.Arn}}/invocations"}


def integration(logical_id: str, **changes: object) -> Resource:
    properties = {"IntegrationType": "AWS_PROXY", "IntegrationUri": invocation(logical_id)}
    return resource("ApiGatewayV2::Integration", **properties | changes)


def route(key: str, integration: str, **more: object) -> Resource:
    target = {"Fn::Join": ["/", ["integrations", {"Ref": integration}]]}
    return resource("ApiGatewayV2::Route", RouteKey=key, Target=target, **more)


def authorizer(**changes: object) -> Resource:
    properties = {"AuthorizerType": "REQUEST", "AuthorizerUri": invocation("Guard")}
    return resource("ApiGatewayV2::Authorizer", **properties | changes)


def stage(**more: object) -> Resource:
    return resource("ApiGatewayV2::Stage", StageName="beta", ApiId={"Ref": "Socket"}, **more)


def parts(**changes: Resource) -> dict[str, Resource]:
    """An API of somebody else: two functions, two identity sources, routes of their own, no `$default`."""
    guarded = {"AuthorizationType": "CUSTOM", "AuthorizerId": {"Ref": "Door"}}
    return {
        "Socket": resource(
            "ApiGatewayV2::Api", ProtocolType="WEBSOCKET", RouteSelectionExpression="$request.body.service.do"
        ),
        "Beta": stage(AutoDeploy=True),
        "Role": role(),
        "Guard": function("guard"),
        "Rooms": function("rooms", Timeout=7),
        "Door": authorizer(IdentitySource=["route.request.header.Auth", "route.request.querystring.room"]),
        "ToRooms": integration("Rooms"),
        "ToGuard": integration("Guard"),
        "Connect": route("$connect", "ToRooms", **guarded),
        "Join": route("joinRoom", "ToRooms", AuthorizationType="NONE"),
        "Report": route("report", "ToGuard"),
        **changes,
    }
