"""For operators: saved queries, a dashboard, alarms, and a policy for the operator commands."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_apigatewayv2 as apigatewayv2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.alarms import Alarms
from infra.connection_table import ConnectionTable
from infra.dashboard import Dashboard
from infra.findings import accept, format_for_finding
from infra.image_function import ImageFunction
from infra.websocket_api import WebSocketApi

# API Gateway's request id is `apiRequestId` in the functions' log lines, where `requestId` is Lambda's. In the access log
# it is `requestId`.
QUERIES = {
    "One connection": 'connectionId = "CONNECTION_ID"',
    # A refused client has no connection id, only the header x-amz-apigw-id.
    "One request": 'apiRequestId = "REQUEST_ID" or requestId = "REQUEST_ID"',
}
COLUMNS = (
    "@timestamp",
    "@log",
    "message",
    "reason",
    "status",
    "routeKey",
    "coalesce(apiRequestId, requestId) as apiGatewayRequestId",
    "closeCode",
    "connectionId",
    "errorMessage",
)


class Operations(Construct):
    """The saved queries for the logs, the dashboard and the alarms."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        authorizer: ImageFunction,
        websocket: ImageFunction,
        api: WebSocketApi,
        table: ConnectionTable,
        throttle: apigatewayv2.ThrottleSettings,
        alarm_email: str | None,
    ) -> None:
        super().__init__(scope, id_)
        self._save_queries([authorizer.log_group, websocket.log_group, api.access_log])
        alarms = Alarms(
            self,
            "Alarms",
            authorizer=authorizer.function,
            websocket=websocket.function,
            stage=api.stage,
            table=table,
            throttle=throttle,
            email=alarm_email,
        )
        self.dashboard = Dashboard(
            self,
            "Dashboard",
            alarms=alarms.all,
            authorizer=authorizer.function,
            websocket=websocket.function,
            stage=api.stage,
            table=table,
        ).dashboard

    def _save_queries(self, log_groups: Sequence[logs.ILogGroup]) -> None:
        """Save the queries for CloudWatch Logs Insights, in a folder with the stack's name."""
        for name, condition in QUERIES.items():
            logs.QueryDefinition(
                self,
                name.title().replace(" ", ""),
                query_definition_name=f"{cdk.Stack.of(self).stack_name}/{name}",
                query_string=logs.QueryString(
                    fields=[*COLUMNS], filter_statements=[condition], sort="@timestamp asc", limit=1000
                ),
                log_groups=log_groups,
            )


class OperatorPolicy(Construct):
    """The permissions of the operator commands. Attach the policy to the roles of the people who run them."""

    def __init__(self, scope: Construct, id_: str) -> None:
        super().__init__(scope, id_)
        stack = cdk.Stack.of(self)
        self.policy = iam.ManagedPolicy(self, "Policy", description=f"Operator commands of stack {stack.stack_name}")
        # The commands find the stack by its name and read its outputs.
        this_stack = stack.format_arn(service="cloudformation", resource="stack", resource_name=f"{stack.stack_name}/*")
        self.policy.add_statements(
            iam.PolicyStatement(actions=["cloudformation:DescribeStacks"], resources=[this_stack])
        )
        reason = (
            "CloudFormation adds an id to the stack's ARN, and a command that has only the name cannot know the id."
        )
        accept(self.policy, f"IAM5[Resource::{format_for_finding(self, this_stack)}]", reason)
