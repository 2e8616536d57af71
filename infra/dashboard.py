"""The dashboard."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_apigatewayv2 as apigatewayv2
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.connection_table import ConnectionTable
from infra.metrics import AUTHORIZER_REASONS, CONNECT_REASONS, count

COLUMNS = 24  # of a CloudWatch dashboard


class Dashboard(Construct):
    """The alarms, then a row of graphs each for connections, messages, either function, and the table."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        alarms: Sequence[cloudwatch.Alarm],
        authorizer: lambda_.Function,
        websocket: lambda_.Function,
        stage: apigatewayv2.WebSocketStage,
        table: ConnectionTable,
    ) -> None:
        super().__init__(scope, id_)
        self.dashboard = cloudwatch.Dashboard(self, "Dashboard", default_interval=cdk.Duration.hours(3))
        self.dashboard.add_widgets(cloudwatch.AlarmStatusWidget(alarms=alarms, title="Alarms", width=COLUMNS, height=4))
        for row in (
            graphs_of_connections(authorizer, websocket, stage),
            graphs_of_messages(websocket, stage),
            graphs_of_function("Authorizer", authorizer),
            graphs_of_function("WebSocket function", websocket),
            graphs_of_table(table),
        ):
            self.dashboard.add_widgets(*row)


Graphs = list[cloudwatch.GraphWidget]


def graphs_of_connections(
    authorizer: lambda_.Function, websocket: lambda_.Function, stage: apigatewayv2.WebSocketStage
) -> Graphs:
    refusals = [
        count("Refused", function, reason_class=reason, label=reason)
        for function, reasons in ((authorizer, AUTHORIZER_REASONS), (websocket, CONNECT_REASONS))
        for reason in reasons
    ]
    counts = [count(name, websocket) for name in ("Accepted", "Expired", "Gone")]
    return [
        graph("Connections", stage.metric("ConnectCount", statistic="Sum"), *counts),
        graph("Refusal ratio", count("Refused", authorizer, statistic="Average", label="of all decisions")),
        graph("Refusals by class of reasons", *refusals),
        graph("Keys unavailable", count("KeysUnavailable", authorizer)),
    ]


def graphs_of_messages(websocket: lambda_.Function, stage: apigatewayv2.WebSocketStage) -> Graphs:
    errors = [stage.metric(name, statistic="Sum") for name in ("IntegrationError", "ExecutionError", "ClientError")]
    return [
        graph("Messages", stage.metric("MessageCount", statistic="Sum")),
        graph("Errors", *errors, count("EchoFailed", websocket)),
        graph("Integration latency p99", stage.metric("IntegrationLatency", statistic="p99")),
    ]


def graphs_of_function(name: str, function: lambda_.Function) -> Graphs:
    return [
        graph(f"{name}: invocations", function.metric_invocations()),
        graph(f"{name}: errors and throttles", function.metric_errors(), function.metric_throttles()),
        graph(f"{name}: duration p99", function.metric_duration(statistic="p99")),
        graph(f"{name}: concurrency", function.metric("ConcurrentExecutions", statistic="Maximum")),
    ]


def graphs_of_table(table: ConnectionTable) -> Graphs:
    return [
        graph("Table: throttled requests", *table.throttled_requests().values()),
        graph("Table: consumed write capacity", *table.consumed_writes()),
    ]


def graph(title: str, *metrics: cloudwatch.Metric) -> cloudwatch.GraphWidget:
    return cloudwatch.GraphWidget(title=title, left=[*metrics], width=COLUMNS // 4)
