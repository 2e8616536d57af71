"""The WebSocket API and its stage."""

import json
from enum import StrEnum

import aws_cdk as cdk
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_apigatewayv2 as apigatewayv2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk.aws_apigatewayv2_authorizers import WebSocketLambdaAuthorizer
from aws_cdk.aws_apigatewayv2_integrations import WebSocketLambdaIntegration
from constructs import Construct, IConstruct

from infra.findings import accept, shown

# Facts of a connection or message; never the query string, which carries the token. The variables are those of
# https://docs.aws.amazon.com/apigateway/latest/developerguide/websocket-api-logging.html; without a value it is "-".
# Of an error, `message` is quoted here: `messageString` brings its own quotes, but "-" has none, which is not JSON.
ACCESS_LOG_FORMAT = {
    "requestId": "$context.requestId",
    "requestTime": "$context.requestTime",
    "eventType": "$context.eventType",
    "routeKey": "$context.routeKey",
    "status": "$context.status",
    "connectionId": "$context.connectionId",
    "sourceIp": "$context.identity.sourceIp",
    "principalId": "$context.authorizer.principalId",
    "authorizerRequestId": "$context.authorizer.requestId",
    "authorizerStatus": "$context.authorizer.status",
    "authorizerLatency": "$context.authorizer.latency",
    "authorizerError": "$context.authorizer.error",
    "integrationRequestId": "$context.integration.requestId",
    "integrationStatus": "$context.integration.status",
    "integrationLatency": "$context.integration.latency",
    "integrationError": "$context.integration.error",
    "errorMessage": "$context.error.message",
    "errorResponseType": "$context.error.responseType",
}


class Credential(StrEnum):
    """Where a client puts its ID token; docs/clients.md has what each costs."""

    QUERYSTRING = "querystring"
    SUBPROTOCOL = "subprotocol"


# Without a value there, API Gateway answers 401 by itself.
IDENTITY_SOURCE = {
    Credential.QUERYSTRING: "route.request.querystring.idToken",
    Credential.SUBPROTOCOL: "route.request.header.Sec-WebSocket-Protocol",
}


class WebSocketApi(Construct):
    """The API: `$connect` is open only to those whom the authorizer lets in; one function serves every route."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        authorizer: lambda_.Function,
        integration: lambda_.Function,
        credential: Credential,
        throttle: apigatewayv2.ThrottleSettings,
        log_role: bool,
        log_retention: logs.RetentionDays,
        removal_policy: cdk.RemovalPolicy,
    ) -> None:
        super().__init__(scope, id_)
        self.credential = credential
        route = apigatewayv2.WebSocketRouteOptions
        every_route = WebSocketLambdaIntegration("Integration", integration)
        guard = WebSocketLambdaAuthorizer("Authorizer", authorizer, identity_source=[IDENTITY_SOURCE[credential]])
        authorizer.add_environment("CREDENTIAL_MODE", credential)
        self.api = apigatewayv2.WebSocketApi(
            self,
            "Api",
            api_name=cdk.Stack.of(self).stack_name,
            connect_route_options=route(integration=every_route, authorizer=guard),
            disconnect_route_options=route(integration=every_route),
            default_route_options=route(integration=every_route),
        )
        self.api.add_route("keepalive", integration=every_route)
        reason = "API Gateway authorizes a connection once, at $connect: no other route can have an authorizer."
        for route_key in ("$disconnect", "$default", "keepalive"):
            accept(self.api.node.find_child(f"{route_key}-Route"), "APIG4", reason)
        self.stage = apigatewayv2.WebSocketStage(
            self, "Stage", web_socket_api=self.api, stage_name="prod", auto_deploy=True, throttle=throttle
        )
        # Not live before all its routes: while `$connect` is missing, an API lets everybody in.
        self.stage.node.add_dependency(self.api)
        self.access_log = logs.LogGroup(self, "AccessLog", retention=log_retention, removal_policy=removal_policy)
        resource = self.stage.node.default_child
        assert isinstance(resource, apigatewayv2.CfnStage)
        resource.access_log_settings = apigatewayv2.CfnStage.AccessLogSettingsProperty(
            destination_arn=self._access_log_arn(), format=json.dumps(ACCESS_LOG_FORMAT)
        )
        # The stage names the API, and so waits for it anyway.
        resource.add_metadata("cfn-lint", {"config": {"ignore_checks": ["W3005"]}})
        if log_role:
            self.stage.node.add_dependency(ApiGatewayLogRole(self, "LogRole"))

    def _access_log_arn(self) -> str:
        """Return the ARN as API Gateway keeps it: with the log group's own, which ends with `:*`, every stage has drifted."""
        return cdk.Stack.of(self).format_arn(
            service="logs",
            resource="log-group",
            resource_name=self.access_log.log_group_name,
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )

    def page_config(self) -> dict[str, str]:
        """Return what a page needs to connect."""
        return {"webSocketEndpoint": self.stage.url, "credential": self.credential}

    def post_messages_from(self, function: lambda_.Function) -> None:
        """The function may send to this stage's connections and close them; inspecting them is not included."""
        function.add_environment("CALLBACK_URL", self.stage.callback_url)
        assert function.role is not None
        function.add_to_role_policy(self._manage_connections("POST", "DELETE", role=function.role))

    def allow_operators(self, policy: iam.ManagedPolicy) -> None:
        """Operators may send to this stage's connections, inspect and close them."""
        policy.add_statements(self._manage_connections("POST", "GET", "DELETE", role=policy))

    def _manage_connections(self, *methods: str, role: IConstruct) -> iam.PolicyStatement:
        """Return a statement for these methods of `@connections`, for a role or policy where cdk-nag will find it."""
        resources = [
            cdk.Stack.of(self).format_arn(
                service="execute-api",
                resource=self.api.api_id,
                resource_name=f"{self.stage.stage_name}/{method}/@connections/*",
            )
            for method in methods
        ]
        reason = "API Gateway makes up a connection's id as it is opened: a policy can only name its stage."
        for resource in resources:
            accept(role, f"IAM5[Resource::{shown(self, resource)}]", reason)
        return iam.PolicyStatement(actions=["execute-api:ManageConnections"], resources=resources)


class ApiGatewayLogRole(Construct):
    """Lets API Gateway write logs in this account and region; without it a first deployment is refused.

    The setting belongs to the account: destroying the stack leaves it, other APIs may rely on it.
    """

    def __init__(self, scope: Construct, id_: str) -> None:
        super().__init__(scope, id_)
        policy = iam.ManagedPolicy.from_aws_managed_policy_name("service-role/AmazonAPIGatewayPushToCloudWatchLogs")
        role = iam.Role(
            self, "Role", assumed_by=iam.ServicePrincipal("apigateway.amazonaws.com"), managed_policies=[policy]
        )
        reason = "The role is for every API of the account, and this is the policy that AWS made for it."
        accept(role, f"IAM4[Policy::{shown(self, policy.managed_policy_arn)}]", reason)
        account = apigateway.CfnAccount(self, "Account", cloud_watch_role_arn=role.role_arn)
        for resource in (role, account):
            resource.apply_removal_policy(cdk.RemovalPolicy.RETAIN)
