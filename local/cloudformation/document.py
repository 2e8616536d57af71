"""Reads a CloudFormation template, and evaluates its parameters, conditions and references.

A template is refused if the local run would differ from AWS. Anything that has no effect locally is ignored.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from local.aws.account import ARNS, Account
from local.cloudformation import intrinsics
from local.cloudformation.intrinsics import REMOVED
from local.cloudformation.resource_types import COMPLETE_SERVICES, RUN, is_without_effect
from local.cloudformation.template_file import (
    check_attributes,
    find_assembly_account,
    parse,
    read_section,
    refuse_transforms,
)
from local.cloudformation.values import Scalar, expect, to_text
from local.errors import TemplateError

# The property with a resource's name, by type. Without it, CloudFormation generates a name.
NAMES = {
    "AWS::ApiGatewayV2::Stage": "StageName",
    "AWS::Cognito::UserPoolDomain": "Domain",
    "AWS::Cognito::UserPoolGroup": "GroupName",
    "AWS::Cognito::UserPoolResourceServer": "Identifier",
    "AWS::DynamoDB::GlobalTable": "TableName",
    "AWS::DynamoDB::Table": "TableName",
    "AWS::ECR::Repository": "RepositoryName",
    "AWS::Events::EventBus": "Name",
    "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
    "AWS::IAM::Role": "RoleName",
    "AWS::KMS::Alias": "AliasName",
    "AWS::Kinesis::Stream": "Name",
    "AWS::Lambda::Function": "FunctionName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::S3::Bucket": "BucketName",
    "AWS::SNS::Topic": "TopicName",
    "AWS::SQS::Queue": "QueueName",
    "AWS::SSM::Parameter": "Name",
    "AWS::SecretsManager::Secret": "Name",
}
NAMED_BY_ARN = {"AWS::IAM::ManagedPolicy", "AWS::SNS::Topic", "AWS::SecretsManager::Secret"}
QUEUE_URL = "https://sqs.{region}.{url_suffix}/{account}/{id}"
ATTRIBUTES = {
    "AWS::ApiGatewayV2::Api.ApiEndpoint": "wss://{id}.execute-api.{region}.{url_suffix}",
    "AWS::ApiGatewayV2::Api.ApiId": "{id}",
    "AWS::ApiGatewayV2::Authorizer.AuthorizerId": "{id}",
    "AWS::ApiGatewayV2::Integration.IntegrationId": "{id}",
    "AWS::ApiGatewayV2::Route.RouteId": "{id}",
    "AWS::Cognito::UserPool.ProviderName": "cognito-idp.{region}.{url_suffix}/{id}",
    "AWS::Cognito::UserPool.ProviderURL": "https://cognito-idp.{region}.{url_suffix}/{id}",
    "AWS::Cognito::UserPool.UserPoolId": "{id}",
    "AWS::Cognito::UserPoolClient.ClientId": "{id}",
    "AWS::Lambda::Version.Version": "1",
    "AWS::S3::Bucket.DomainName": "{id}.s3.{url_suffix}",
    "AWS::S3::Bucket.RegionalDomainName": "{id}.s3.{region}.{url_suffix}",
    "AWS::SNS::Topic.TopicArn": "{id}",
    "AWS::SNS::Topic.TopicName": "{name}",
    "AWS::SQS::Queue.QueueName": "{name}",
    "AWS::SQS::Queue.QueueUrl": "{id}",
    "AWS::SecretsManager::Secret.Id": "{id}",
}
OTHER_ARN = "arn:{partition}:*:{region}:{account}:{id}"
STACK_ID = "arn:{partition}:cloudformation:{region}:{account}:stack/{id}/00000000-0000-0000-0000-000000000000"
BOUND_SERVICES = ("execute-api", "lambda", "dynamodb", "cognito-idp")  # their ARNs tell the template's account
ARN = re.compile(r":([\w-]+):([a-z]{2}(?:-[a-z]+)+-\d):(\d{12}):(?!layer)")  # service, region, account


@dataclass
class Document:
    """A template. Its references can be resolved when its resources have physical ids.

    Attributes:
        resources: the resources whose condition is true.
        left_out: the conditions, by logical id, of the resources whose condition is false.
        physical_ids: ids of created resources by logical id; other resources get a name as CloudFormation generates it.
    """

    name: str
    resources: dict[str, dict[str, Any]]
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    mappings: dict[str, Any] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    physical_ids: dict[str, str] = field(default_factory=dict)
    account: Account = Account()  # noqa: RUF009 - frozen

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a template file.

        Raises:
            TemplateError: the file is no template, or a resource cannot be run locally. The message names it.
        """
        content = parse(path)
        refuse_transforms(path, content.get("Transform") or [])
        template = cls(
            re.sub("[^A-Za-z0-9]+", "-", path.name.partition(".")[0]).strip("-") or "local",
            resources=read_section(path, content, "Resources"),
            outputs=read_section(path, content, "Outputs"),
            parameters=read_section(path, content, "Parameters"),
            mappings=read_section(path, content, "Mappings"),
            conditions=read_section(path, content, "Conditions"),
        )
        if not template.resources:
            raise TemplateError(f"{path} has no Resources, so it is no template that can be run")
        for logical_id, resource in template.resources.items():
            check_attributes(logical_id, resource)
        template.account = find_assembly_account(path) or template._find_account_in_arns()
        for logical_id, resource in list(template.resources.items()):
            condition = resource.get("Condition")
            if condition is not None and not template.evaluate_condition(condition, logical_id):
                template.left_out[logical_id] = condition
                del template.resources[logical_id]
        for logical_id, resource in template.resources.items():
            template._check_type(logical_id, resource)
        return template

    def _find_account_in_arns(self) -> Account:
        """Return the account and region that most ARNs name: those of permissions, and those that are written out.

        An ARN of another account does no harm, because then everything in the template belongs to that account.
        """
        sources = []
        for logical_id, resource in self.resources.items():
            if resource["Type"] == "AWS::Lambda::Permission":
                with suppress(TemplateError):
                    sources.append(self.evaluate(resource.get("Properties", {}).get("SourceArn"), logical_id))
        self.physical_ids.clear()  # the names that were generated so far may contain the default account
        written = [each.get("Properties") for each in self.resources.values() if each["Type"] in RUN]
        arns = ARN.findall(json.dumps([sources, written], default=str))
        for service in BOUND_SERVICES:
            found = Counter((account, region) for each, region, account in arns if each == service)
            del found[Account.id, Account.region]
            if found:
                ((account, region), _), *_ = found.most_common(1)
                return Account.of(account, region)
        return Account()

    def _check_type(self, logical_id: str, resource: dict[str, Any]) -> None:
        """Raise TemplateError if the resource's type is not run and the local run would differ from AWS without it."""
        type_ = resource["Type"]
        if type_ in RUN or is_without_effect(type_):
            return
        if type_.rpartition("::")[0] in COMPLETE_SERVICES or not type_.startswith("AWS::"):
            raise TemplateError(f"{logical_id}: {type_} cannot be run locally; leave it out of the local run")
        for name in find_references(resource.get("Properties", {})):
            if self.resources.get(name, {}).get("Type", "").startswith("AWS::Lambda::"):
                raise TemplateError(
                    f"{logical_id}: {type_} refers to {name}, which it could not invoke locally;"
                    " leave it out of the local run"
                )

    def read_all(self, type_: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the logical id and the properties of each resource of a type."""
        for logical_id, resource in self.resources.items():
            if resource["Type"] == type_:
                yield logical_id, self.read_properties(logical_id)

    def read_properties(self, logical_id: str, *only: str) -> dict[str, Any]:
        """Return a resource's properties, or `only` these, evaluated and with the right types. Leave out ignored ones.

        Raises:
            TemplateError: a property is missing, has the wrong type, or cannot be run locally.
        """
        type_, given = RUN[self.resources[logical_id]["Type"]], self.find_written_properties(logical_id)
        ignored = type_.ignored.split()
        found: dict[str, Any] = {}
        for name in only or (each for each in given if each not in ignored):
            value = self.evaluate(given[name], f"{logical_id}: {name}") if name in given else REMOVED
            if value is not REMOVED:
                found |= type_.coerce(name, value, logical_id)
        if not only and (missing := [name for name in type_.required.split() if name not in found]):
            raise TemplateError(f"{logical_id}: {', '.join(missing)} is missing")
        return found

    def find_written_properties(self, logical_id: str) -> dict[str, Any]:
        """Return a resource's properties as the template has them, not evaluated."""
        properties: dict[str, Any] = self.resources[logical_id].get("Properties", {})
        return properties

    def evaluate_output(self, name: str) -> Any:
        """Return an output's value. Raise TemplateError if it cannot be evaluated locally."""
        return self.evaluate(self.outputs[name].get("Value"), f"output {name}")

    def evaluate(self, value: Any, where: str) -> Any:
        """Return the value with its intrinsic functions evaluated.

        Raises:
            TemplateError: a function is unknown or refers to nothing; the message starts with `where`.
        """
        try:
            return intrinsics.evaluate(self, value, where)
        except RecursionError:
            raise TemplateError(f"{where}: it is nested too deeply, or refers to itself") from None

    def evaluate_condition(self, name: str, where: str) -> bool:
        """Return whether a condition is true."""
        if not isinstance(name, str) or name not in self.conditions:
            raise TemplateError(f"{where}: condition {name} is not defined in Conditions")
        where = f"condition {name}"
        return expect(bool, self.evaluate(self.conditions[name], where), where, "true or false")

    def resolve_reference(self, name: str, where: str) -> Any:
        """Return the value of `Ref` for a parameter, pseudo parameter or resource."""
        pseudo_parameters = {
            "AWS::AccountId": self.account.id,
            "AWS::NoValue": REMOVED,
            "AWS::NotificationARNs": [],
            "AWS::Partition": self.account.partition,
            "AWS::Region": self.account.region,
            "AWS::StackId": self.account.format(STACK_ID, self.name),
            "AWS::StackName": self.name,
            "AWS::URLSuffix": self.account.url_suffix,
        }
        if name in pseudo_parameters:
            return pseudo_parameters[name]
        if name in self.parameters:
            return self._read_parameter(name, where)
        self._check_exists(name, where)
        return self.get_physical_id(name)

    def resolve_attribute(self, logical_id: str, name: str, where: str) -> str:
        """Return the value of `Fn::GetAtt` for a resource."""
        self._check_exists(logical_id, where)
        type_ = self.resources[logical_id]["Type"]
        id_ = self.get_physical_id(logical_id)
        if f"{type_}.{name}" in ATTRIBUTES:
            return self.account.format(ATTRIBUTES[f"{type_}.{name}"], id_)
        if name == "Arn" and id_.startswith("arn:"):
            return id_
        if name == "Arn" and type_ in ARNS:
            own_name = id_.rpartition("/")[2] if type_ == "AWS::SQS::Queue" else id_
            return self.account.build_arn(type_, self._read_path(logical_id) + own_name)
        if name == "Arn" and type_ not in RUN and type_.startswith("AWS::"):
            # Calls to this service are refused, so the ARN's form does not matter.
            return self.account.format(OTHER_ARN, id_).replace("*", type_.split("::")[1].lower())
        raise TemplateError(f"{where}: Fn::GetAtt {logical_id}.{name} is not known locally; use another value there")

    def get_physical_id(self, logical_id: str) -> str:
        """Return a resource's physical id; without one, its own name or a name as CloudFormation generates it."""
        if logical_id not in self.physical_ids:
            self.physical_ids[logical_id] = self._make_up_id(logical_id)
        return self.physical_ids[logical_id]

    def _make_up_id(self, logical_id: str) -> str:
        resource = self.resources[logical_id]
        type_, properties = resource["Type"], resource.get("Properties", {})
        if type_ == "AWS::ApiGatewayV2::Api":
            return "localapi00"
        name = self.evaluate(properties.get(NAMES.get(type_, ""), REMOVED), logical_id)
        if name is REMOVED:
            name = f"{self.name}-{logical_id}"
        name = (
            to_text(name) if isinstance(name, Scalar) else expect(str, name, f"{logical_id}: {NAMES[type_]}", "a text")
        )
        if type_ in NAMED_BY_ARN:
            return self.account.build_arn(type_, self._read_path(logical_id) + name)
        return self.account.format(QUEUE_URL, name) if type_ == "AWS::SQS::Queue" else name

    def _read_path(self, logical_id: str) -> str:
        """Return the path before the name in the ARN of a role or managed policy; empty for other types."""
        resource = self.resources[logical_id]
        path = resource.get("Properties", {}).get("Path", "/") if resource["Type"].startswith("AWS::IAM::") else "/"
        return str(self.evaluate(path, f"{logical_id}: Path"))[1:]

    def _read_parameter(self, name: str, where: str) -> Any:
        parameter = self.parameters[name]
        type_, default = str(parameter.get("Type")), parameter.get("Default")
        if type_.startswith("AWS::SSM::Parameter::Value"):
            raise TemplateError(
                f"{where}: parameter {name} is a value of Systems Manager, which is not run locally; use a value there"
            )
        if not isinstance(default, Scalar):
            raise TemplateError(
                f"{where}: parameter {name} has no Default that is a text or a number; give it one for the local run"
            )
        return [each.strip() for each in to_text(default).split(",")] if "List" in type_ else to_text(default)

    def _check_exists(self, logical_id: str, where: str) -> None:
        if logical_id in self.left_out:
            condition = self.left_out[logical_id]
            raise TemplateError(f"{where}: {logical_id} does not exist, because its condition {condition} is false")
        if logical_id not in self.resources:
            raise TemplateError(f"{where}: {logical_id} is no resource or parameter of the template")


def find_references(value: Any) -> Iterator[str]:
    """Yield the names that a value refers to, in both branches of each condition."""
    if isinstance(value, list):
        for each in value:
            yield from find_references(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            match name, each:
                case "Ref" | "Fn::GetAtt", str():
                    yield each.partition(".")[0]
                case "Fn::GetAtt", [str(logical_id), *_]:
                    yield logical_id
                case "Fn::Sub", str(template) | [str(template), *_]:
                    yield from re.findall(r"\$\{(\w+)", template)
            yield from find_references(each)
