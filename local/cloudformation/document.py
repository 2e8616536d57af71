"""A CloudFormation template: which resources it may have here, and what its intrinsic functions come to.

What it says and nobody here understands is an error that names it, never dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from local.aws.account import ARNS, Account
from local.errors import TemplateError

# Condition and CreationPolicy would change what is created, or when.
RESOURCE_ATTRIBUTES = {"DeletionPolicy", "DependsOn", "Metadata", "Properties", "Type", "UpdateReplacePolicy"}
# Part of the deployment, without an effect on a desk.
WITHOUT_EFFECT = {
    "AWS::ApiGateway::Account",
    "AWS::ApiGatewayV2::Deployment",
    "AWS::CDK::Metadata",
    "AWS::Logs::LogGroup",
}
OUTPUT_ATTRIBUTES = {"Description", "Export", "Value"}
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
# The property that is a resource's name, and its Ref, if it has one; otherwise a name is made up.
NAMES = {
    "AWS::DynamoDB::Table": "TableName",
    "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
    "AWS::IAM::Role": "RoleName",
    "AWS::Lambda::Function": "FunctionName",
}


@dataclass
class Document:
    """A template whose references can be resolved once its resources have physical ids.

    `physical_ids` starts with the names that CloudFormation would make up; whoever creates a real
    resource (a user pool) sets the id that it got.
    """

    name: str
    resources: dict[str, dict[str, Any]]
    outputs: dict[str, dict[str, Any]]
    physical_ids: dict[str, str] = field(default_factory=dict)
    account: Account = Account()  # noqa: RUF009 - frozen

    @classmethod
    def read(cls, path: Path) -> Self:
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
                yield logical_id, self.evaluate(resource.get("Properties", {}), logical_id)

    def output(self, name: str) -> Any:
        """Return an output's value; TemplateError names the output if its value is unknown here."""
        output = self.outputs[name]
        if unknown := output.keys() - OUTPUT_ATTRIBUTES:
            raise TemplateError(f"output {name}: {', '.join(sorted(unknown))} cannot be evaluated locally")
        return self.evaluate(output["Value"], f"output {name}")

    def evaluate(self, value: Any, where: str) -> Any:
        """The value with its intrinsic functions evaluated; TemplateError names `where` if one is unknown."""
        if isinstance(value, list):
            return [self.evaluate(item, where) for item in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            (name, argument) = next(iter(value.items()))
            if name in INTRINSICS:
                return INTRINSICS[name](self, argument, where)
            if name.startswith("Fn::") or name == "Condition":
                raise TemplateError(f"{where}: intrinsic function {name} cannot be evaluated locally")
        return {key: self.evaluate(item, where) for key, item in value.items()}

    def reference(self, name: str, where: str) -> str:
        pseudo_parameters = {
            "AWS::AccountId": self.account.id,
            "AWS::Partition": self.account.partition,
            "AWS::Region": self.account.region,
            "AWS::URLSuffix": self.account.url_suffix,
        }
        if name in pseudo_parameters:
            return pseudo_parameters[name]
        if name not in self.physical_ids:
            raise TemplateError(f"{where}: Ref {name} refers to no resource of the template")
        return self.physical_ids[name]

    def attribute(self, argument: Any, where: str) -> str:
        logical_id, name = argument if isinstance(argument, list) else argument.split(".", 1)
        physical_id = self.reference(logical_id, where)
        type_ = self.resources[logical_id]["Type"]
        if name != "Arn" or type_ not in ARNS:
            raise TemplateError(f"{where}: Fn::GetAtt {logical_id}.{name} cannot be evaluated locally")
        return self.account.arn(type_, physical_id)

    def join(self, argument: Any, where: str) -> str:
        separator, parts = argument
        return str(separator).join(str(self.evaluate(part, where)) for part in parts)

    def substitute(self, argument: Any, where: str) -> str:
        text, variables = argument if isinstance(argument, list) else (argument, {})

        def replacement(match: re.Match[str]) -> str:
            name = match[1]
            if name.startswith("!"):
                return "${" + name[1:] + "}"
            if name in variables:
                return str(self.evaluate(variables[name], where))
            return self.attribute(name, where) if "." in name else self.reference(name, where)

        return re.sub(r"\$\{([^}]+)\}", replacement, text)


INTRINSICS: dict[str, Callable[[Document, Any, str], Any]] = {
    "Ref": Document.reference,
    "Fn::GetAtt": Document.attribute,
    "Fn::Join": Document.join,
    "Fn::Sub": Document.substitute,
}
