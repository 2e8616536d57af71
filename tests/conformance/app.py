"""The conformance pack's APIs, each in a stack. Run the pack against AWS:

npx cdk deploy --all --app ".venv/bin/python -m tests.conformance.app" --outputs-file outputs.json
pytest tests/conformance --outputs outputs.json
npx cdk destroy --all --app ".venv/bin/python -m tests.conformance.app"

Destroy the stacks after the run: everybody who knows an endpoint can run scripts in its function.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import infra  # noqa: F401 - silences jsii

# isort: split
import aws_cdk as cdk
from aws_cdk import aws_apigatewayv2 as apigatewayv2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk.aws_apigatewayv2_authorizers import WebSocketLambdaAuthorizer
from aws_cdk.aws_apigatewayv2_integrations import WebSocketLambdaIntegration
from constructs import Construct

from infra.image_function import ImageFunction

IMAGES = Path(__file__).resolve().parent / "images"
THROTTLE = apigatewayv2.ThrottleSettings(rate_limit=100, burst_limit=100)


class Probe(ImageFunction):
    """The function that runs clients' scripts. `seconds` is its timeout."""

    def __init__(self, scope: Construct, id_: str, *, seconds: int = 10) -> None:
        super().__init__(
            scope,
            id_,
            target="probe",
            images=IMAGES,
            timeout=cdk.Duration.seconds(seconds),
            log_retention=logs.RetentionDays.ONE_DAY,
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )


class ConformanceStack(cdk.Stack):
    """A WebSocket API with one stage. One probe serves all routes, except those that are added with their own function."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        routes: tuple[str, ...],
        expression: str = "$request.body.action",
        identity_source: list[str] | None = None,
        stage_variables: dict[str, str] | None = None,
        throttle: apigatewayv2.ThrottleSettings = THROTTLE,
        seconds: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(scope, id_, **kwargs)
        self.api = apigatewayv2.WebSocketApi(self, "Api", api_name=id_, route_selection_expression=expression)
        self.stage = apigatewayv2.WebSocketStage(
            self, "Stage", web_socket_api=self.api, stage_name="conformance", auto_deploy=True, throttle=throttle
        )
        if stage_variables:
            self.cfn_stage.stage_variables = stage_variables
        self.probe = Probe(self, "Probe", seconds=seconds).function
        self.stage.grant_management_api_access(self.probe)
        self.probe.add_environment("CALLBACK_URL", self.stage.callback_url)
        authorizer = None
        if identity_source is not None:
            authorizer = WebSocketLambdaAuthorizer("Authorizer", self.probe, identity_source=identity_source)
        integration = WebSocketLambdaIntegration("Integration", self.probe)
        for key in routes:
            self.api.add_route(key, integration=integration, authorizer=authorizer if key == "$connect" else None)
        cdk.CfnOutput(self, "Endpoint", value=self.stage.url)
        cdk.CfnOutput(self, "CallbackUrl", value=self.stage.callback_url)

    @property
    def cfn_stage(self) -> apigatewayv2.CfnStage:
        resource = self.stage.node.default_child
        assert isinstance(resource, apigatewayv2.CfnStage)
        return resource

    def add_two_way_route(self, key: str) -> None:
        integration = WebSocketLambdaIntegration("TwoWayIntegration", self.probe)
        self.api.add_route(key, integration=integration, return_response=True)

    def add_route_with_short_timeout(self, key: str, *, milliseconds: int) -> None:
        """Add a route whose integration times out before its function does."""
        timeout = cdk.Duration.millis(milliseconds)
        self.api.add_route(
            key, integration=WebSocketLambdaIntegration("ShortTimeoutIntegration", self.probe, timeout=timeout)
        )

    def add_route_without_permission(self, key: str) -> None:
        """Add a route whose function API Gateway may not invoke."""
        uri = (
            f"arn:{self.partition}:apigateway:{self.region}:lambda:path/2015-03-31/functions/"
            f"{self.probe.function_arn}/invocations"
        )
        integration = apigatewayv2.CfnIntegration(
            self,
            "UnpermittedIntegration",
            api_id=self.api.api_id,
            integration_type="AWS_PROXY",
            integration_uri=uri,
        )
        apigatewayv2.CfnRoute(
            self,
            "UnpermittedRoute",
            api_id=self.api.api_id,
            route_key=key,
            target=f"integrations/{integration.ref}",
        )

    def add_slow_route(self, key: str) -> None:
        """Add a route whose function has two seconds, and may post to connections but not get or delete them."""
        slow: lambda_.Function = Probe(self, "Slow", seconds=2).function
        slow.add_environment("CALLBACK_URL", self.stage.callback_url)
        resource_name = f"{self.stage.stage_name}/POST/@connections/*"
        stage = self.format_arn(service="execute-api", resource=self.api.api_id, resource_name=resource_name)
        slow.add_to_role_policy(iam.PolicyStatement(actions=["execute-api:ManageConnections"], resources=[stage]))
        self.api.add_route(key, integration=WebSocketLambdaIntegration("SlowIntegration", slow))


def main() -> None:
    app = cdk.App()
    stack = ConformanceStack(
        app,
        "ConformanceMain",
        routes=("$connect", "$disconnect", "$default", "custom", "1", "true"),
        identity_source=["route.request.querystring.token"],
    )
    stack.add_two_way_route("two-way")
    stack.add_slow_route("slow")
    stack.add_route_with_short_timeout("short-timeout", milliseconds=500)
    stack.add_route_without_permission("unpermitted")
    ConformanceStack(
        app,
        "ConformanceBare",
        routes=("chat-send", "chat-"),
        expression="${request.body.service}-${request.body.name}",
    )
    ConformanceStack(
        app,
        "ConformanceGuarded",
        routes=("$connect", "$disconnect", "$default", "echo"),
        expression="$request.body.service.do",
        identity_source=["route.request.header.X-Token", "route.request.querystring.token"],
        stage_variables={"colour": "blue"},
    )
    ConformanceStack(
        app,
        "ConformanceOpen",
        routes=("$connect", "$disconnect", "$default", "[a, b]"),
        expression="$request.body.list",
        identity_source=[],
        seconds=3,
    )
    ConformanceStack(
        app,
        "ConformanceThrottled",
        routes=("$connect", "fixed"),
        expression="fixed",
        throttle=apigatewayv2.ThrottleSettings(rate_limit=5, burst_limit=2),
    )
    ConformanceStack(app, "ConformanceUnpermitted", routes=()).add_route_without_permission("$connect")
    app.synth()


if __name__ == "__main__":
    main()
