"""Reads the synthesized CloudFormation template: routes, authorizer, functions, tables, user pools.

The template is the only configuration of the local run. What it says and this module does not
understand is an error that names it, never dropped.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.iam import PolicyError, Role, Statement, matches, parse_policy

REGION = "us-east-1"
ACCOUNT_ID = "000000000000"  # the account of ministack's "test" credentials
ACCOUNT = {"region": REGION, "account": ACCOUNT_ID}
DEFAULT_ROUTE_SELECTION = "$request.body.action"

PSEUDO_PARAMETERS = {
    "AWS::AccountId": ACCOUNT_ID,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::URLSuffix": "amazonaws.com",
}
# Condition and CreationPolicy would change what is created, or when.
RESOURCE_ATTRIBUTES = {"DeletionPolicy", "DependsOn", "Metadata", "Properties", "Type", "UpdateReplacePolicy"}
# Part of the deployment, without an effect on a desk.
WITHOUT_EFFECT = {
    "AWS::ApiGateway::Account",
    "AWS::ApiGatewayV2::Deployment",
    "AWS::CDK::Metadata",
    "AWS::Logs::LogGroup",
}
# What is run, and the properties that are understood; None leaves the judgement to the local AWS.
LOCAL: dict[str, set[str] | None] = {
    "AWS::ApiGatewayV2::Api": {"Description", "Name", "ProtocolType", "RouteSelectionExpression", "Tags"},
    "AWS::ApiGatewayV2::Authorizer": {"ApiId", "AuthorizerType", "AuthorizerUri", "IdentitySource", "Name"},
    "AWS::ApiGatewayV2::Integration": {
        "ApiId",
        "Description",
        "IntegrationMethod",
        "IntegrationType",
        "IntegrationUri",
        "TimeoutInMillis",
    },
    "AWS::ApiGatewayV2::Route": {
        "ApiId",
        "AuthorizationType",
        "AuthorizerId",
        "OperationName",
        "RouteKey",
        "RouteResponseSelectionExpression",
        "Target",
    },
    "AWS::ApiGatewayV2::RouteResponse": {"ApiId", "RouteId", "RouteResponseKey"},
    "AWS::ApiGatewayV2::Stage": {
        "AccessLogSettings",
        "ApiId",
        "AutoDeploy",
        "DefaultRouteSettings",
        "DeploymentId",
        "Description",
        "RouteSettings",
        "StageName",
        "StageVariables",
        "Tags",
    },
    "AWS::Cognito::UserPool": None,
    "AWS::Cognito::UserPoolClient": None,
    "AWS::DynamoDB::Table": None,
    "AWS::IAM::ManagedPolicy": {"Description", "ManagedPolicyName", "Path", "PolicyDocument", "Roles"},
    "AWS::IAM::Policy": {"PolicyDocument", "PolicyName", "Roles"},
    "AWS::IAM::Role": None,  # only functions' roles are evaluated
    "AWS::Lambda::Function": {
        "Architectures",
        "Code",
        "Description",
        "Environment",
        "FunctionName",
        "LoggingConfig",
        "MemorySize",
        "PackageType",
        "Role",
        "Tags",
        "Timeout",
        "TracingConfig",
    },
    "AWS::Lambda::Permission": {"Action", "FunctionName", "Principal", "SourceAccount", "SourceArn"},
}
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
# The property that is a resource's name, and its Ref, if it has one; otherwise a name is made up.
NAMES = {
    "AWS::DynamoDB::Table": "TableName",
    "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
    "AWS::IAM::Role": "RoleName",
    "AWS::Lambda::Function": "FunctionName",
}
INVOCATION_URI = re.compile(r"functions/(arn:[^/]+)/invocations$")


class TemplateError(Exception):
    """The template cannot be run here; the message names the resource and the reason."""


@dataclass(frozen=True)
class Function:
    """An AWS::Lambda::Function; `target` is the bake target, and with it the handler's module."""

    name: str
    arn: str
    target: str
    environment: dict[str, str]
    timeout_seconds: float
    memory_mb: int
    logging: dict[str, str]
    role: Role


@dataclass(frozen=True)
class Throttle:
    """At most `rate` requests a second, and up to `burst` at once."""

    rate: float
    burst: float


ACCOUNT_THROTTLE = Throttle(rate=10_000, burst=5_000)


@dataclass(frozen=True)
class Authorizer:
    """An AWS::ApiGatewayV2::Authorizer; `identity_sources` are expressions, e.g. `route.request.querystring.idToken`."""

    function_arn: str
    identity_sources: tuple[str, ...]
    id: str = "authorizer"


@dataclass(frozen=True)
class Route:
    """An AWS::ApiGatewayV2::Route with its integration.

    Attributes:
        two_way: the function's response body goes back to the client.
    """

    key: str
    function_arn: str
    authorizer: Authorizer | None = None
    two_way: bool = False
    timeout_seconds: float = 29.0
    throttle: Throttle = ACCOUNT_THROTTLE


@dataclass(frozen=True)
class Api:
    """A WebSocket API with its one stage.

    Attributes:
        deployed: a stage without a deployment refuses every handshake.
        permissions: function ARN and pattern of who may invoke it, from AWS::Lambda::Permission; None allows everybody.
    """

    id: str
    stage: str
    route_selection_expression: str
    routes: dict[str, Route]
    stage_variables: dict[str, str] = field(default_factory=dict)
    deployed: bool = True
    permissions: frozenset[tuple[str, str]] | None = None

    def may_invoke(self, function_arn: str, source: str) -> bool:
        """Whether API Gateway may call the function for this route or authorizer."""
        return self.permissions is None or any(
            allowed == function_arn and matches(pattern, source) for allowed, pattern in self.permissions
        )

    @property
    def domain_name(self) -> str:
        return f"{self.id}.execute-api.{REGION}.amazonaws.com"

    @property
    def arn(self) -> str:
        return f"arn:aws:execute-api:{REGION}:{ACCOUNT_ID}:{self.id}/{self.stage}"


@dataclass
class Template:
    """A template whose references can be resolved once its resources have physical ids.

    `physical_ids` starts with the names that CloudFormation would make up; whoever creates a real
    resource (a user pool) sets the id that it got.
    """

    name: str
    resources: dict[str, dict[str, Any]]
    outputs: dict[str, dict[str, Any]]
    physical_ids: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Template:
        document = json.loads(path.read_text())
        template = cls(path.name.partition(".")[0], document["Resources"], document.get("Outputs", {}))
        for logical_id, resource in template.resources.items():
            template._check(logical_id, resource)
        template.physical_ids = {
            logical_id: template._made_up_id(logical_id, resource)
            for logical_id, resource in template.resources.items()
        }
        return template

    def _check(self, logical_id: str, resource: dict[str, Any]) -> None:
        type_ = resource["Type"]
        if type_ not in LOCAL and type_ not in WITHOUT_EFFECT:
            raise TemplateError(f"{logical_id}: {type_} cannot be run locally")
        understood = LOCAL.get(type_)
        unknown = resource.keys() - RESOURCE_ATTRIBUTES
        if understood:
            unknown |= resource.get("Properties", {}).keys() - understood
        if unknown:
            raise TemplateError(f"{logical_id}: {', '.join(sorted(unknown))} of {type_} cannot be run locally")

    def _made_up_id(self, logical_id: str, resource: dict[str, Any]) -> str:
        match resource["Type"]:
            case "AWS::ApiGatewayV2::Api":
                return "localapi" + f"{len(self.physical_ids):02}"
            case "AWS::ApiGatewayV2::Stage":
                return str(resource["Properties"]["StageName"])
        own_name = resource.get("Properties", {}).get(NAMES.get(resource["Type"], ""))
        return own_name if isinstance(own_name, str) else f"{self.name}-{logical_id}"

    def of_type(self, type_: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Logical ids and resolved properties of all resources of a type."""
        for logical_id, resource in self.resources.items():
            if resource["Type"] == type_:
                yield logical_id, self.resolve(resource.get("Properties", {}), logical_id)

    def resolve(self, value: Any, where: str) -> Any:
        """The value with its intrinsic functions evaluated; TemplateError names `where` if one is unknown."""
        if isinstance(value, list):
            return [self.resolve(item, where) for item in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            (name, argument) = next(iter(value.items()))
            if name in INTRINSICS:
                return INTRINSICS[name](self, argument, where)
            if name.startswith("Fn::") or name == "Condition":
                raise TemplateError(f"{where}: intrinsic function {name} cannot be evaluated locally")
        return {key: self.resolve(item, where) for key, item in value.items()}

    def reference(self, name: str, where: str) -> str:
        if name in PSEUDO_PARAMETERS:
            return PSEUDO_PARAMETERS[name]
        if name not in self.physical_ids:
            raise TemplateError(f"{where}: Ref {name} refers to no resource of the template")
        return self.physical_ids[name]

    def attribute(self, argument: Any, where: str) -> str:
        logical_id, name = argument if isinstance(argument, list) else argument.split(".", 1)
        physical_id = self.reference(logical_id, where)
        arn = ARNS.get(self.resources[logical_id]["Type"])
        if name != "Arn" or arn is None:
            raise TemplateError(f"{where}: Fn::GetAtt {logical_id}.{name} cannot be evaluated locally")
        return arn.format(**ACCOUNT, id=physical_id)

    def join(self, argument: Any, where: str) -> str:
        separator, parts = argument
        return str(separator).join(str(self.resolve(part, where)) for part in parts)

    def substitute(self, argument: Any, where: str) -> str:
        text, variables = argument if isinstance(argument, list) else (argument, {})

        def replacement(match: re.Match[str]) -> str:
            name = match[1]
            if name.startswith("!"):
                return "${" + name[1:] + "}"
            if name in variables:
                return str(self.resolve(variables[name], where))
            return self.attribute(name, where) if "." in name else self.reference(name, where)

        return re.sub(r"\$\{([^}]+)\}", replacement, text)

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
            here = properties.get("SourceAccount", ACCOUNT_ID) == ACCOUNT_ID
            if to_invoke and here and properties["Principal"] == "apigateway.amazonaws.com":
                name = str(properties["FunctionName"])
                arn = name if name.startswith("arn:") else ARNS["AWS::Lambda::Function"].format(**ACCOUNT, id=name)
                yield arn, properties.get("SourceArn", "*")

    def _route(self, logical_id: str, properties: dict[str, Any], throttle: Throttle) -> Route:
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
            timeout_seconds=integration.get("TimeoutInMillis", 29_000) / 1000,
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


INTRINSICS: dict[str, Callable[[Template, Any, str], Any]] = {
    "Ref": Template.reference,
    "Fn::GetAtt": Template.attribute,
    "Fn::Join": Template.join,
    "Fn::Sub": Template.substitute,
}
ARNS = {
    "AWS::Cognito::UserPool": "arn:aws:cognito-idp:{region}:{account}:userpool/{id}",
    "AWS::DynamoDB::Table": "arn:aws:dynamodb:{region}:{account}:table/{id}",
    "AWS::IAM::Role": "arn:aws:iam::{account}:role/{id}",
    "AWS::Lambda::Function": "arn:aws:lambda:{region}:{account}:function:{id}",
    "AWS::Logs::LogGroup": "arn:aws:logs:{region}:{account}:log-group:{id}:*",
}


def synthesize(root: Path, outdir: Path) -> Path:
    """Runs the CDK app of `root`/cdk.json as the CDK CLI would; returns the template's path.

    Raises:
        TemplateError: the app failed, its last lines of output are the message.
    """
    settings = json.loads((root / "cdk.json").read_text())
    environment = {
        **os.environ,
        "CDK_OUTDIR": str(outdir),
        "CDK_CONTEXT_JSON": json.dumps(settings["context"]),
        "CDK_VALIDATION": "false",  # half of the time; `npx cdk synth` and the tests do it
    }
    command = shlex.split(settings["app"])
    synthesis = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if synthesis.returncode != 0:
        raise TemplateError(f"{settings['app']} failed:\n{synthesis.stderr.strip()[-2000:]}")
    (template,) = outdir.glob("*.template.json")
    return template
