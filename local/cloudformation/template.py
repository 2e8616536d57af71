"""Reads functions, roles and the WebSocket API from a template, the only configuration of the local run."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from local.apigateway.api import ACCOUNT_THROTTLE, INTEGRATION_SECONDS, Api, Authorizer, Route, Throttle
from local.aws.iam import PolicyError, Role, Statement, parse_policy
from local.cloudformation.document import Document
from local.cloudformation.stack import Stack
from local.errors import TemplateError
from local.lambda_.function import Function

DEFAULT_ROUTE_SELECTION = "$request.body.action"
ROUTE_SETTINGS = {
    "DataTraceEnabled",
    "DetailedMetricsEnabled",
    "LoggingLevel",
    "ThrottlingBurstLimit",
    "ThrottlingRateLimit",
}
ROLE_PROPERTIES = {
    "AssumeRolePolicyDocument",
    "Description",
    "ManagedPolicyArns",
    "MaxSessionDuration",
    "Path",
    "Policies",
    "RoleName",
    "Tags",
}
# What AWS's own policies for logs and traces allow; others cannot be known here.
# https://docs.aws.amazon.com/aws-managed-policy/latest/reference/policy-list.html
MANAGED_POLICIES = {
    "service-role/AWSLambdaBasicExecutionRole": ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"),
    "AWSXRayDaemonWriteAccess": (
        "xray:PutTraceSegments",
        "xray:PutTelemetryRecords",
        "xray:GetSamplingRules",
        "xray:GetSamplingTargets",
        "xray:GetSamplingStatisticSummaries",
    ),
}
INVOCATION_URI = re.compile(r"functions/(arn:[^/]+)/invocations$")


class Template(Document):
    """A template that is run: what its resources are to the gateway and to the functions."""

    def with_physical_ids(self, physical_ids: Mapping[str, str]) -> Self:
        """Return the template with the ids, by logical id, that resources got when they were created."""
        return dataclasses.replace(self, physical_ids={**self.physical_ids, **physical_ids})

    def resolve(self, outputs: Iterable[str] = ()) -> Stack:
        """Return what the template comes to, with the values of those of these outputs that it has.

        Raises:
            TemplateError: something cannot be run here; the message names it.
        """
        by_type: defaultdict[str, list[str]] = defaultdict(list)
        for logical_id, resource in self.resources.items():
            by_type[resource["Type"]].append(self.physical_ids[logical_id])
        return Stack(
            account=self.account,
            api=self.api(),
            functions=self.functions(),
            physical_ids=dict(by_type),
            outputs={name: self.output(name) for name in outputs if name in self.outputs},
        )

    def functions(self) -> dict[str, Function]:
        """All functions by ARN."""
        found = {}
        for logical_id, properties in self.of_type("AWS::Lambda::Function"):
            target = self.resources[logical_id].get("Metadata", {}).get("BakeTarget")
            if target is None:
                raise TemplateError(f"{logical_id}: metadata BakeTarget is missing, so its image is unknown")
            function = Function(
                name=self.physical_ids[logical_id],
                arn=self.attribute([logical_id, "Arn"], logical_id),
                target=target,
                environment=properties.get("Environment", {}).get("Variables", {}),
                timeout_seconds=properties.get("Timeout", 3),
                memory_mb=properties.get("MemorySize", 128),
                logging=properties.get("LoggingConfig", {}),
                role=self._role(properties.get("Role", "(none)"), logical_id),
            )
            found[function.arn] = function
        return found

    def _role(self, arn: str, where: str) -> Role:
        """A function's role with the statements of all its policies; TemplateError for one that cannot be evaluated."""
        roles = dict(self.of_type("AWS::IAM::Role"))
        logical_id = next((each for each in roles if self.attribute([each, "Arn"], where) == arn), None)
        if logical_id is None:
            raise TemplateError(f"{where}: Role {arn} is no role of the template, so what it allows is unknown")
        name = self.physical_ids[logical_id]
        if unknown := roles[logical_id].keys() - ROLE_PROPERTIES:
            raise TemplateError(f"{logical_id}: {', '.join(sorted(unknown))} of a role cannot be evaluated locally")
        attached = roles[logical_id].get("ManagedPolicyArns", [])
        documents = [(logical_id, policy["PolicyDocument"]) for policy in roles[logical_id].get("Policies", ())]
        for type_ in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
            documents += [
                (policy_id, policy["PolicyDocument"])
                for policy_id, policy in self.of_type(type_)
                if name in policy.get("Roles", ()) or self.physical_ids[policy_id] in attached
            ]
        here = {self.physical_ids[policy_id] for policy_id, _ in self.of_type("AWS::IAM::ManagedPolicy")}
        statements = [managed(arn, logical_id) for arn in attached if arn not in here]
        for policy_id, document in documents:
            try:
                statements += parse_policy(document)
            except PolicyError as error:
                raise TemplateError(f"{policy_id}: {error}") from error
        return Role(name, tuple(statements))

    def api(self) -> Api:
        """The one WebSocket API of the template."""
        apis = list(self.of_type("AWS::ApiGatewayV2::Api"))
        stages = list(self.of_type("AWS::ApiGatewayV2::Stage"))
        if len(apis) != 1 or len(stages) != 1:
            raise TemplateError(f"{self.name} has {len(apis)} APIs and {len(stages)} stages, one of each is run")
        (logical_id, properties), (stage_id, stage) = apis[0], stages[0]
        if properties.get("ProtocolType") != "WEBSOCKET":
            raise TemplateError(f"{logical_id}: ProtocolType must be WEBSOCKET")
        routes = [
            self._route(route_id, route, self._throttle(stage_id, stage, route["RouteKey"]))
            for route_id, route in self.of_type("AWS::ApiGatewayV2::Route")
        ]
        if unknown := stage.get("RouteSettings", {}).keys() - {route.key for route in routes}:
            raise TemplateError(f"{stage_id}: RouteSettings has {', '.join(sorted(unknown))}, which is no route")
        return Api(
            id=self.physical_ids[logical_id],
            stage=stage["StageName"],
            route_selection_expression=properties.get("RouteSelectionExpression", DEFAULT_ROUTE_SELECTION),
            routes={route.key: route for route in routes},
            stage_variables=stage.get("StageVariables", {}),
            deployed=bool(stage.get("AutoDeploy") or "DeploymentId" in stage),
            permissions=frozenset(self._permissions()),
            account=self.account,
        )

    def _throttle(self, where: str, stage: dict[str, Any], route_key: str) -> Throttle:
        """The route's own settings, or the stage's for every route."""
        settings = {**stage.get("DefaultRouteSettings", {}), **stage.get("RouteSettings", {}).get(route_key, {})}
        if unknown := settings.keys() - ROUTE_SETTINGS:
            raise TemplateError(f"{where}: {', '.join(sorted(unknown))} of route settings cannot be run locally")
        return Throttle(
            rate=settings.get("ThrottlingRateLimit", ACCOUNT_THROTTLE.rate),
            burst=settings.get("ThrottlingBurstLimit", ACCOUNT_THROTTLE.burst),
        )

    def _permissions(self) -> Iterator[tuple[str, str]]:
        """Function ARN, and pattern of the route or authorizer for which API Gateway may invoke it."""
        for _, properties in self.of_type("AWS::Lambda::Permission"):
            to_invoke = properties["Action"] in {"lambda:InvokeFunction", "lambda:*"}
            here = properties.get("SourceAccount", self.account.id) == self.account.id
            if to_invoke and here and properties["Principal"] == "apigateway.amazonaws.com":
                name = str(properties["FunctionName"])
                arn = name if name.startswith("arn:") else self.account.arn("AWS::Lambda::Function", name)
                yield arn, properties.get("SourceArn", "*")

    def _route(self, logical_id: str, properties: dict[str, Any], throttle: Throttle) -> Route:
        if "Target" not in properties:
            raise TemplateError(
                f"{logical_id}: route {properties['RouteKey']} has no Target, so nothing could serve it"
            )
        integration_id = properties["Target"].removeprefix("integrations/")
        integration = self._by_physical_id("AWS::ApiGatewayV2::Integration", integration_id)
        if integration["IntegrationType"] != "AWS_PROXY":
            raise TemplateError(f"{logical_id}: IntegrationType {integration['IntegrationType']} cannot be run locally")
        kind = properties.get("AuthorizationType", "NONE")
        if kind not in {"NONE", "CUSTOM"}:
            raise TemplateError(f"{logical_id}: AuthorizationType {kind} cannot be run locally")
        if kind == "CUSTOM" and properties["RouteKey"] != "$connect":
            raise TemplateError(f"{logical_id}: only $connect can have an authorizer, {properties['RouteKey']} has one")
        return Route(
            key=properties["RouteKey"],
            function_arn=invoked(integration["IntegrationUri"], logical_id),
            authorizer=self._authorizer(properties["AuthorizerId"]) if kind == "CUSTOM" else None,
            two_way=self._is_two_way(logical_id, properties),
            timeout_seconds=integration.get("TimeoutInMillis", INTEGRATION_SECONDS * 1000) / 1000,
            throttle=throttle,
        )

    def _is_two_way(self, logical_id: str, properties: dict[str, Any]) -> bool:
        """A route answers if it says so and has a route response; `$default` is the only key of both."""
        responses = [
            response["RouteResponseKey"]
            for _, response in self.of_type("AWS::ApiGatewayV2::RouteResponse")
            if response["RouteId"] == self.physical_ids[logical_id]
        ]
        expression = properties.get("RouteResponseSelectionExpression")
        for value in (*responses, *([expression] if expression else ())):
            if value != "$default":
                raise TemplateError(f"{logical_id}: route response {value} does not exist, only $default does")
        return bool(responses) and expression is not None

    def _authorizer(self, physical_id: str) -> Authorizer:
        properties = self._by_physical_id("AWS::ApiGatewayV2::Authorizer", physical_id)
        if properties["AuthorizerType"] != "REQUEST":
            raise TemplateError(f"{physical_id}: AuthorizerType {properties['AuthorizerType']} cannot be run locally")
        return Authorizer(
            function_arn=invoked(properties["AuthorizerUri"], physical_id),
            identity_sources=tuple(properties.get("IdentitySource", ())),
            id=physical_id,
        )

    def _by_physical_id(self, type_: str, physical_id: str) -> dict[str, Any]:
        for logical_id, properties in self.of_type(type_):
            if self.physical_ids[logical_id] == physical_id:
                return properties
        raise TemplateError(f"{physical_id} is no {type_} of the template")


def invoked(uri: str, where: str) -> str:
    """The function's ARN in an integration or authorizer URI."""
    match = INVOCATION_URI.search(uri)
    if match is None:
        raise TemplateError(f"{where}: {uri} does not invoke a Lambda function")
    return match[1]


def managed(arn: str, where: str) -> Statement:
    """What one of AWS's own policies allows."""
    actions = MANAGED_POLICIES.get(arn.partition(":policy/")[2])
    if actions is None:
        raise TemplateError(f"{where}: what {arn} allows is unknown locally")
    return Statement("Allow", actions, ("*",))
