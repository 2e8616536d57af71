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

from infra.findings import accept, format_for_finding

# Never the query string, which contains the token. The variables are documented at
# https://docs.aws.amazon.com/apigateway/latest/developerguide/websocket-api-logging.html. One without a value is "-".
# So `error.message` is used, quoted here: `error.messageString` has its own quotes, but not for "-", which is not JSON.
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
    """Where a client puts its ID token. docs/clients.md compares the two."""

    QUERYSTRING = "querystring"
    SUBPROTOCOL = "subprotocol"


# If the identity source is empty, API Gateway answers 401 and does not invoke the authorizer.
IDENTITY_SOURCE = {
    Credential.QUERYSTRING: "route.request.querystring.idToken",
    Credential.SUBPROTOCOL: "route.request.header.Sec-WebSocket-Protocol",
}


class WebSocketApi(Construct):
    """The WebSocket API. Its authorizer decides who can connect, and one function serves every route."""

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
        # Create the stage after all routes: while `$connect` is missing, everybody can connect.
        self.stage.node.add_dependency(self.api)
        self.access_log = logs.LogGroup(self, "AccessLog", retention=log_retention, removal_policy=removal_policy)
        resource = self.stage.node.default_child
        assert isinstance(resource, apigatewayv2.CfnStage)
        resource.access_log_settings = apigatewayv2.CfnStage.AccessLogSettingsProperty(
            destination_arn=self._access_log_arn(), format=json.dumps(ACCESS_LOG_FORMAT)
        )
        # The stage refers to the API, so the dependency above is redundant for cfn-lint.
        resource.add_metadata("cfn-lint", {"config": {"ignore_checks": ["W3005"]}})
        if log_role:
            self.stage.node.add_dependency(ApiGatewayLogRole(self, "LogRole"))

    def _access_log_arn(self) -> str:
        """Return the ARN as API Gateway stores it. The log group's own ARN ends with `:*`, which would be reported as drift."""
        return cdk.Stack.of(self).format_arn(
            service="logs",
            resource="log-group",
            resource_name=self.access_log.log_group_name,
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )

    def build_page_config(self) -> dict[str, str]:
        """Return the settings that a page needs to connect."""
        return {"webSocketEndpoint": self.stage.url, "credential": self.credential}

    def post_messages_from(self, function: lambda_.Function) -> None:
        """Let the function post to this stage's connections and close them, but not inspect them."""
        function.add_environment("CALLBACK_URL", self.stage.callback_url)
        assert function.role is not None
        function.add_to_role_policy(self._manage_connections("POST", "DELETE", role=function.role))

    def allow_operators(self, policy: iam.ManagedPolicy) -> None:
        """Let operators post to this stage's connections, inspect and close them."""
        policy.add_statements(self._manage_connections("POST", "GET", "DELETE", role=policy))

    def _manage_connections(self, *methods: str, role: IConstruct) -> iam.PolicyStatement:
        """Return a statement for these methods of `@connections`; accept cdk-nag's finding about it at the role or policy."""
        resources = [
            cdk.Stack.of(self).format_arn(
                service="execute-api",
                resource=self.api.api_id,
                resource_name=f"{self.stage.stage_name}/{method}/@connections/*",
            )
            for method in methods
        ]
        reason = "API Gateway creates a connection's id when the connection opens, so a policy can only name the stage."
        for resource in resources:
            accept(role, f"IAM5[Resource::{format_for_finding(self, resource)}]", reason)
        return iam.PolicyStatement(actions=["execute-api:ManageConnections"], resources=resources)


class ApiGatewayLogRole(Construct):
    """The role with which API Gateway writes logs in this account and region. Without one, the deployment fails.

    The setting belongs to the account, so `cdk destroy` keeps it: other APIs may need it.
    """

    def __init__(self, scope: Construct, id_: str) -> None:
        super().__init__(scope, id_)
        policy = iam.ManagedPolicy.from_aws_managed_policy_name("service-role/AmazonAPIGatewayPushToCloudWatchLogs")
        role = iam.Role(
            self, "Role", assumed_by=iam.ServicePrincipal("apigateway.amazonaws.com"), managed_policies=[policy]
        )
        reason = "The role is for all APIs of the account, and AWS provides this policy for that purpose."
        accept(role, f"IAM4[Policy::{format_for_finding(self, policy.managed_policy_arn)}]", reason)
        account = apigateway.CfnAccount(self, "Account", cloud_watch_role_arn=role.role_arn)
        for resource in (role, account):
            resource.apply_removal_policy(cdk.RemovalPolicy.RETAIN)
