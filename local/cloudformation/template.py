"""Reads functions, roles and the WebSocket API from a template. The template configures the whole local run."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from local.apigateway.api import ACCOUNT_THROTTLE, INTEGRATION_SECONDS, Api, Authorizer, Route, Throttle
from local.aws.iam import SERVICES, PolicyError, Role, Statement, may_cover, parse_policy
from local.cloudformation.document import Document
from local.cloudformation.resource_types import CREATED
from local.cloudformation.stack import Stack
from local.errors import TemplateError
from local.lambda_.function import Function

DEFAULT_ROUTE_SELECTION = "$request.body.action"
# AWS's managed policies without grants for the services that are run. The grants of other managed policies are unknown.
# https://docs.aws.amazon.com/aws-managed-policy/latest/reference/policy-list.html
POLICIES_WITHOUT_EFFECT = {
    "AWSXRayDaemonWriteAccess",
    "CloudWatchLambdaInsightsExecutionRolePolicy",
    "service-role/AWSLambdaBasicExecutionRole",
    "service-role/AWSLambdaVPCAccessExecutionRole",
}
# Lambda refuses a function with one of these. https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
RESERVED_VARIABLES = {
    "_HANDLER", "_X_AMZN_TRACE_ID", "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION", "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_RUNTIME_API", "AWS_REGION", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
}  # fmt: skip
TASK_ROOT = "/var/task"  # the folder of the code in an image
VARIABLE = re.compile(r"[a-zA-Z][a-zA-Z0-9_]+")
INVOCATION_URI = re.compile(r"functions/([^/]+)/invocations$")
STAGE_VARIABLE = re.compile(r"\$\{stageVariables\.(\w+)\}")
# A name or a full or partial ARN, with the alias or version at the end.
FUNCTION = re.compile(
    r"(?:arn:[\w-]+:lambda:(?P<region>[\w-]+):)?(?:(?P<account>\d{12}):)?(?:function:)?"
    r"(?P<name>[\w-]+)(?::(?P<qualifier>[\w$-]+))?",
    re.ASCII,
)


class Template(Document):
    """A template that can be resolved to the gateway's API and the functions."""

    def with_physical_ids(self, physical_ids: Mapping[str, str]) -> Self:
        """Return a copy of the template with the physical ids, by logical id, of created resources."""
        return dataclasses.replace(self, physical_ids=dict(physical_ids))

    def read_created_definitions(self) -> dict[str, Any]:
        """Return type and properties, by logical id, of the resources that are created in the local AWS."""
        return {id_: (type_, properties) for type_ in CREATED for id_, properties in self.read_all(type_)}

    def resolve(self, outputs: Iterable[str] = ()) -> Stack:
        """Resolve the template; include the values of these outputs, as far as the template has them.

        Raises:
            TemplateError: something cannot be run locally. The message names it.
        """
        by_type: defaultdict[str, list[str]] = defaultdict(list)
        for logical_id, resource in self.resources.items():
            if resource["Type"] in CREATED:
                type_ = resource["Type"].replace("GlobalTable", "Table")
                by_type[type_].append(self.get_physical_id(logical_id))
        api = self.read_api()
        invoked = {route.function_arn for route in api.routes.values()}
        invoked |= {route.authorizer.function_arn for route in api.routes.values() if route.authorizer}
        return Stack(
            account=self.account,
            api=api,
            functions={arn: self.read_function(arn) for arn in sorted(invoked)},
            physical_ids=dict(by_type),
            outputs={name: self.evaluate_output(name) for name in outputs if self._has_output(name)},
        )

    def _has_output(self, name: str) -> bool:
        condition = self.outputs.get(name, {}).get("Condition")
        return name in self.outputs and (condition is None or self.evaluate_condition(condition, f"output {name}"))

    # Functions

    def read_function(self, arn: str) -> Function:
        """Return a function of the template by its ARN, which may end with an alias or version."""
        logical_id = self._find_functions()[arn]
        properties = self.read_properties(logical_id)
        target = self.resources[logical_id].get("Metadata", {}).get("BakeTarget")
        if not isinstance(target, str) or not re.fullmatch(r"[\w-]+", target):
            raise TemplateError(
                f"{logical_id}: metadata BakeTarget is missing or is no name, so its code is unknown. Only functions that `docker buildx"
                " bake` builds as images are run: name the target, in the CDK by node.default_child.add_metadata"
                '("BakeTarget", "name")'
            )
        self._check_handler(logical_id, f"{target}.handler", properties)
        environment = properties.get("Environment", {}).get("Variables", {})
        for name in environment:
            if name in RESERVED_VARIABLES:
                raise TemplateError(f"{logical_id}: Environment: Lambda sets the variable {name} itself; rename yours")
            if not VARIABLE.fullmatch(name):
                rule = "a letter, followed by at least one letter, digit or _"
                raise TemplateError(f"{logical_id}: Environment: {name} must be {rule}; rename the variable")
        if (size := sum(len(f"{name}{value}".encode(errors="replace")) for name, value in environment.items())) > 4096:
            raise TemplateError(f"{logical_id}: Environment has {size} bytes; Lambda takes at most 4096")
        return Function(
            name=self.get_physical_id(logical_id),
            arn=arn,
            target=target,
            environment=environment,
            timeout_seconds=properties.get("Timeout", 3),
            memory_mb=properties.get("MemorySize", 128),
            logging=properties.get("LoggingConfig", {}),
            role=self._read_role(properties["Role"], logical_id),
        )

    def _check_handler(self, logical_id: str, handler: str, properties: dict[str, Any]) -> None:
        image = properties.get("ImageConfig", {})
        handlers = {properties.get("Handler", handler), *image.get("Command", ())}
        if handlers != {handler} or image.get("EntryPoint") or image.get("WorkingDirectory") not in {None, TASK_ROOT}:
            raise TemplateError(f"{logical_id}: only the handler {handler} is run; leave out ImageConfig and Handler")

    def _find_functions(self) -> dict[str, str]:
        """Return the logical ids of functions by ARN. The ARN of an alias or version maps to its function."""
        functions = {
            self.resolve_attribute(each, "Arn", each): each for each in self._find_ids("AWS::Lambda::Function")
        }
        for logical_id in (*self._find_ids("AWS::Lambda::Version"), *self._find_ids("AWS::Lambda::Alias")):
            properties = self.read_properties(logical_id)
            arn = self.build_function_arn(properties["FunctionName"], logical_id)
            if arn in functions and properties.get("FunctionVersion", "1") in {"1", "$LATEST"}:
                functions[self.get_physical_id(logical_id)] = functions[arn]
        return functions

    def build_function_arn(self, text: str, where: str) -> str:
        """Return the full ARN of a function, given its name or its full or partial ARN."""
        match = FUNCTION.fullmatch(text)
        if match is None:
            raise TemplateError(f"{where}: {text} is not the name or ARN of a function")
        account = dataclasses.replace(
            self.account, id=match["account"] or self.account.id, region=match["region"] or self.account.region
        )
        qualifier = "" if match["qualifier"] in {None, "$LATEST"} else f":{match['qualifier']}"
        return account.build_arn("AWS::Lambda::Function", match["name"]) + qualifier

    def _make_up_id(self, logical_id: str) -> str:
        if self.resources[logical_id]["Type"] not in {"AWS::Lambda::Alias", "AWS::Lambda::Version"}:
            return super()._make_up_id(logical_id)
        properties = self.read_properties(logical_id)
        return f"{self.build_function_arn(properties['FunctionName'], logical_id)}:{properties.get('Name', '1')}"

    def _find_ids(self, type_: str) -> list[str]:
        return [logical_id for logical_id, resource in self.resources.items() if resource["Type"] == type_]

    # Roles

    def find_written_properties(self, logical_id: str) -> dict[str, Any]:
        """Return a resource's properties as the template has them, not evaluated.

        In policies, drop the roles of other stacks and the details of statements for services that are not run, because
        their values may be unknown locally.
        """
        properties = super().find_written_properties(logical_id)
        if self.resources[logical_id]["Type"].startswith("AWS::IAM::"):
            properties = dict(properties)
            if isinstance(roles := properties.get("Roles"), list):
                properties["Roles"] = [role for role in roles if not is_imported(role)]
            if isinstance(policies := properties.get("Policies"), list):
                properties["Policies"] = [self._drop_other_services(policy, logical_id) for policy in policies]
            properties = self._drop_other_services(properties, logical_id)
        return properties

    def _drop_other_services(self, policy: Any, where: str) -> Any:
        """Return a copy of the policy in which statements for services that are not run have only their actions."""
        document = policy.get("PolicyDocument") if isinstance(policy, dict) else None
        if not isinstance(document, dict) or not isinstance(statements := document.get("Statement"), list):
            return policy
        judged = []
        for statement in statements:
            actions = self.evaluate(statement.get("Action"), where) if isinstance(statement, dict) else None
            judged.append(statement if may_cover({"Action": actions}, SERVICES) else {"Action": actions})
        return {**policy, "PolicyDocument": {**document, "Statement": judged}}

    def _read_role(self, arn: str, where: str) -> Role:
        """Return a function's role with the statements of all its policies. Raise TemplateError if one is unknown."""
        logical_id = next(
            (each for each in self._find_ids("AWS::IAM::Role") if self.resolve_attribute(each, "Arn", where) == arn), ""
        )
        if not logical_id:
            raise TemplateError(f"{where}: Role {arn} is no role of the template, so what it allows is unknown")
        name, properties = self.get_physical_id(logical_id), self.read_properties(logical_id)
        attached = properties.get("ManagedPolicyArns", [])
        documents = [
            (f"{logical_id}: policy {policy.get('PolicyName', number)}", policy["PolicyDocument"])
            for number, policy in enumerate(properties.get("Policies", ()), 1)
        ]
        documents += [
            (each, self.read_properties(each).get("PolicyDocument")) for each in self._find_policies(name, attached)
        ]
        here = {self.get_physical_id(policy_id) for policy_id in self._find_ids("AWS::IAM::ManagedPolicy")}
        for policy in attached:
            if policy not in here and policy.partition(":policy/")[2] not in POLICIES_WITHOUT_EFFECT:
                rule = "what it allows is unknown locally; write its statements into a policy"
                raise TemplateError(f"{logical_id}: {policy}: {rule}")
        return Role(name, tuple(self._parse_statements(documents)))

    def read_managed_policy(self, logical_id: str) -> Role:
        """Return a role with this policy only. Raise TemplateError if the policy cannot be evaluated."""
        document = self.read_properties(logical_id)["PolicyDocument"]
        return Role(logical_id, tuple(self._parse_statements([(logical_id, document)])))

    def _parse_statements(self, documents: Iterable[tuple[str, Any]]) -> Iterator[Statement]:
        for policy_id, document in documents:
            try:
                yield from parse_policy(document, SERVICES)
            except PolicyError as error:
                raise TemplateError(f"{policy_id}: {error}; leave it out of the local run") from error

    def _find_policies(self, role: str, attached: list[str]) -> Iterator[str]:
        """Yield the logical ids of a role's policies. Either the policy names the role, or the role has it attached."""
        for logical_id in (*self._find_ids("AWS::IAM::Policy"), *self._find_ids("AWS::IAM::ManagedPolicy")):
            if (
                role in self.read_properties(logical_id, "Roles").get("Roles", ())
                or self.get_physical_id(logical_id) in attached
            ):
                yield logical_id
        for logical_id in self._find_ids("AWS::IAM::RolePolicy"):
            if self.read_properties(logical_id, "RoleName").get("RoleName") == role:
                yield logical_id

    # The API

    def read_api(self) -> Api:
        """Return the template's WebSocket API. Raise TemplateError if there is not exactly one API with one stage."""
        apis, stages = self._find_ids("AWS::ApiGatewayV2::Api"), self._find_ids("AWS::ApiGatewayV2::Stage")
        if len(apis) != 1 or len(stages) != 1:
            found = ", ".join((*apis, *stages)) or "none"
            raise TemplateError(f"{self.name}: one API with one stage is run, the template has {found}")
        (logical_id,), (stage_id,) = apis, stages
        properties, stage = self.read_properties(logical_id), self.read_properties(stage_id)
        if properties["ProtocolType"] != "WEBSOCKET":
            raise TemplateError(f"{logical_id}: ProtocolType must be WEBSOCKET")
        self._check_api(stage_id, stage)
        if not re.fullmatch(r"[\w-]+", stage["StageName"], re.ASCII):
            raise TemplateError(f"{stage_id}: StageName {stage['StageName']} must have letters, digits, - and _ only")
        routes: dict[str, Route] = {}
        for route_id, route in self.read_all("AWS::ApiGatewayV2::Route"):
            key = route["RouteKey"]
            if key in routes:
                raise TemplateError(f"{route_id}: another route has the RouteKey {key}, too")
            self._check_api(route_id, route)
            routes[key] = self._read_route(route_id, route, stage)
        if unknown := stage.get("RouteSettings", {}).keys() - routes.keys():
            raise TemplateError(f"{stage_id}: RouteSettings has {', '.join(sorted(unknown))}, which is no route")
        api = Api(
            id=self.get_physical_id(logical_id),
            stage=stage["StageName"],
            route_selection_expression=properties.get("RouteSelectionExpression", DEFAULT_ROUTE_SELECTION),
            routes=routes,
            stage_variables=stage.get("StageVariables", {}),
            deployed=bool(stage.get("AutoDeploy") or "DeploymentId" in stage),
            permissions=frozenset(self._read_permissions()),
            account=self.account,
        )
        with name_resource_in_errors(logical_id):
            api.route_selection  # noqa: B018 - raises TemplateError
        return api

    def _check_api(self, where: str, properties: dict[str, Any]) -> None:
        (logical_id,) = self._find_ids("AWS::ApiGatewayV2::Api")
        if properties.get("ApiId", self.get_physical_id(logical_id)) != self.get_physical_id(logical_id):
            raise TemplateError(f"{where}: ApiId {properties['ApiId']} is not the API of the template, {logical_id}")

    def _read_permissions(self) -> Iterator[tuple[str, str]]:
        """Yield pairs: a function's ARN, and the pattern of the routes and authorizers that may invoke it."""
        for logical_id in self._find_ids("AWS::Lambda::Permission"):
            if is_imported(self.resources[logical_id].get("Properties", {}).get("FunctionName")):
                continue  # another stack's function
            if self.read_properties(logical_id, "Principal").get("Principal") not in {"apigateway.amazonaws.com", "*"}:
                continue
            properties = self.read_properties(logical_id)
            to_invoke = properties["Action"] in {"lambda:InvokeFunction", "lambda:*", "*"}
            if to_invoke and properties.get("SourceAccount", self.account.id) == self.account.id:
                yield self.build_function_arn(properties["FunctionName"], logical_id), properties.get("SourceArn", "*")

    def _read_route(self, logical_id: str, properties: dict[str, Any], stage: dict[str, Any]) -> Route:
        key = properties["RouteKey"]
        if "Target" not in properties:
            raise TemplateError(f"{logical_id}: route {key} has no Target, so it would invoke nothing; give it one")
        integration_id = self._find("AWS::ApiGatewayV2::Integration", properties["Target"], f"{logical_id}: Target")
        integration = self.read_properties(integration_id)
        self._check_api(integration_id, integration)
        if integration["IntegrationType"] != "AWS_PROXY":
            raise TemplateError(
                f"{integration_id}: IntegrationType {integration['IntegrationType']} cannot be run locally, only AWS_PROXY;"
                " leave its routes out of the local run"
            )
        kind = properties.get("AuthorizationType", "NONE")
        if kind not in {"NONE", "CUSTOM"}:
            raise TemplateError(f"{logical_id}: AuthorizationType {kind} cannot be run locally, only NONE or CUSTOM")
        if kind == "CUSTOM" and key != "$connect":
            raise TemplateError(f"{logical_id}: only $connect can have an authorizer, {key} has one")
        settings = {**stage.get("DefaultRouteSettings", {}), **stage.get("RouteSettings", {}).get(key, {})}
        return Route(
            key=key,
            function_arn=self._find_invoked_function(integration.get("IntegrationUri", ""), integration_id, stage),
            authorizer=self._read_authorizer(logical_id, properties, stage) if kind == "CUSTOM" else None,
            two_way=self._is_two_way(logical_id, properties),
            timeout_seconds=integration.get("TimeoutInMillis", INTEGRATION_SECONDS * 1000) / 1000,
            throttle=Throttle(
                rate=settings.get("ThrottlingRateLimit", ACCOUNT_THROTTLE.rate),
                burst=settings.get("ThrottlingBurstLimit", ACCOUNT_THROTTLE.burst),
            ),
        )

    def _is_two_way(self, logical_id: str, properties: dict[str, Any]) -> bool:
        """Return whether a route is two-way: it has a selection expression for responses, and a route response."""
        responses = [
            response["RouteResponseKey"]
            for _, response in self.read_all("AWS::ApiGatewayV2::RouteResponse")
            if response["RouteId"] == self.get_physical_id(logical_id)
        ]
        expression = properties.get("RouteResponseSelectionExpression")
        for value in (*responses, *([expression] if expression else ())):
            if value != "$default":
                raise TemplateError(f"{logical_id}: route response {value} does not exist, only $default does")
        return bool(responses) and expression is not None

    def _read_authorizer(self, route_id: str, route: dict[str, Any], stage: dict[str, Any]) -> Authorizer:
        where = f"{route_id}: AuthorizerId"
        logical_id = self._find("AWS::ApiGatewayV2::Authorizer", route.get("AuthorizerId", ""), where)
        properties = self.read_properties(logical_id)
        self._check_api(logical_id, properties)
        if properties["AuthorizerType"] != "REQUEST":
            raise TemplateError(f"{logical_id}: AuthorizerType {properties['AuthorizerType']} cannot be run locally")
        function_arn = self._find_invoked_function(properties["AuthorizerUri"], logical_id, stage)
        with name_resource_in_errors(logical_id):
            return Authorizer(
                function_arn, tuple(properties.get("IdentitySource", ())), id=self.get_physical_id(logical_id)
            )

    def _find(self, type_: str, reference: str, where: str) -> str:
        """Return the logical id of the resource with this physical id, which may have the prefix `integrations/`."""
        found = [
            each
            for each in self._find_ids(type_)
            if self.get_physical_id(each) == reference.removeprefix("integrations/")
        ]
        if not found:
            raise TemplateError(f"{where}: {reference or 'nothing'} is no {type_} of the template")
        return found[0]

    def _find_invoked_function(self, uri: str, where: str, stage: dict[str, Any]) -> str:
        """Return the ARN of the function that a URI invokes, after filling in the stage's variables."""
        variables = stage.get("StageVariables", {})
        filled = STAGE_VARIABLE.sub(lambda match: variables.get(match[1], match[0]), uri)
        match = INVOCATION_URI.search(filled)
        if match is None:
            rule = "arn:aws:apigateway:REGION:lambda:path/2015-03-31/functions/FUNCTION_ARN/invocations"
            raise TemplateError(f"{where}: {uri or 'no URI'} is not the URI of a function's invocations, {rule}")
        arn = self.build_function_arn(match[1], where)
        if arn not in self._find_functions():
            raise TemplateError(f"{where}: {arn} is no function, alias or version of the template, so it cannot be run")
        return arn


@contextmanager
def name_resource_in_errors(logical_id: str) -> Iterator[None]:
    """Put the resource's logical id in front of the message of a TemplateError."""
    try:
        yield
    except TemplateError as error:
        raise TemplateError(f"{logical_id}: {error}") from error


def is_imported(value: Any) -> bool:
    """Return whether a value comes from another stack."""
    return "Fn::ImportValue" in json.dumps(value)
