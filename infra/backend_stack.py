"""The stack: its parts, their permissions, and the outputs that clients and operators need."""

from collections.abc import Sequence
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_apigatewayv2 as apigatewayv2
from aws_cdk import aws_cognito as cognito
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.auth import Auth
from infra.connection_table import ConnectionTable
from infra.image_function import ImageFunction
from infra.operations import Operations, OperatorPolicy
from infra.websocket_api import Credential, WebSocketApi

INTEGRATION_TIMEOUT = cdk.Duration.seconds(29)  # API Gateway waits no longer than this for a function
THROTTLE = apigatewayv2.ThrottleSettings(rate_limit=500, burst_limit=1000)  # for each route, in requests a second


class BackendStack(cdk.Stack):
    """A WebSocket API that only users of a Cognito user pool can open, and the table of its connections.

    Args:
        credential: where a client puts its ID token.
        allowed_origins: origins of the pages that may connect, as browsers write them; none: any page.
        allow_missing_origin: also allow clients that send no Origin, as programs other than browsers do.
        required_group: group of the user pool that a user must be in; None: any user.
        max_connections_per_user: how many connections a user may have at the same time; None: any number.
        self_sign_up: let anybody sign up; otherwise an administrator creates the users.
        feature_plan: plan of the user pool, priced by active user. Nothing here needs more than LITE.
        removal_policy: what `cdk destroy` does with users and logs. Connections are always deleted with the API.
        throttle: the stage's limits on each route: handshakes or messages a second, and the burst.
        log_retention: how long the logs of functions and the access log are kept.
        log_role: create the account's role for API Gateway logs. One for each account and region is enough.
        alarm_email: address that gets the alarms after it has confirmed the subscription; None: none are sent.
    """

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        credential: Credential = Credential.QUERYSTRING,
        allowed_origins: Sequence[str] = (),
        allow_missing_origin: bool = False,
        required_group: str | None = None,
        max_connections_per_user: int | None = None,
        self_sign_up: bool = False,
        feature_plan: cognito.FeaturePlan = cognito.FeaturePlan.LITE,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
        throttle: apigatewayv2.ThrottleSettings = THROTTLE,
        log_retention: logs.RetentionDays = logs.RetentionDays.ONE_MONTH,
        log_role: bool = True,
        alarm_email: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(scope, id_, **kwargs)
        auth = Auth(self, "Auth", self_sign_up=self_sign_up, feature_plan=feature_plan, removal_policy=removal_policy)
        table = ConnectionTable(self, "ConnectionTable", max_connections_per_user=max_connections_per_user)
        authorizer = ImageFunction(
            self, "Authorizer", target="authorizer", log_retention=log_retention, removal_policy=removal_policy
        )
        websocket = ImageFunction(
            self,
            "WebSocket",
            target="websocket",
            timeout=INTEGRATION_TIMEOUT,
            log_retention=log_retention,
            removal_policy=removal_policy,
        )
        api = WebSocketApi(
            self,
            "Api",
            authorizer=authorizer.function,
            integration=websocket.function,
            credential=credential,
            throttle=throttle,
            log_role=log_role,
            log_retention=log_retention,
            removal_policy=removal_policy,
        )

        auth.verify_tokens_in(authorizer.function, required_group=required_group)
        if allowed_origins:
            authorizer.function.add_environment("ALLOWED_ORIGINS", " ".join(allowed_origins))
            authorizer.function.add_environment("ALLOW_MISSING_ORIGIN", str(allow_missing_origin).lower())
        table.track_connections_from(websocket.function)
        api.post_messages_from(websocket.function)

        operations = Operations(
            self,
            "Operations",
            authorizer=authorizer,
            websocket=websocket,
            api=api,
            throttle=throttle,
            table=table,
            alarm_email=alarm_email,
        )
        operator_policy = OperatorPolicy(self, "OperatorPolicy")
        for part in (table, api, auth):
            part.allow_operators(operator_policy.policy)

        page_config = {
            **auth.build_page_config(),
            **api.build_page_config(),
            "allowedOrigins": [*allowed_origins],
            "authorizerLogGroup": authorizer.log_group.log_group_name,
        }
        for name, value in {
            "Region": self.region,
            "UserPoolId": auth.user_pool.user_pool_id,
            "AppClientId": auth.app_client.user_pool_client_id,
            "WebSocketEndpoint": api.stage.url,
            "CallbackUrl": api.stage.callback_url,
            "ConnectionTableName": table.table.table_name,
            "AuthorizerLogGroup": authorizer.log_group.log_group_name,
            "WebSocketLogGroup": websocket.log_group.log_group_name,
            "AccessLogGroup": api.access_log.log_group_name,
            "DashboardName": operations.dashboard.dashboard_name,
            "OperatorPolicyArn": operator_policy.policy.managed_policy_arn,
            "PageConfig": self.to_json_string(page_config),
        }.items():
            cdk.CfnOutput(self, name, value=value)
