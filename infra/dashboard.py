"""The CloudWatch dashboard."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_apigatewayv2 as apigatewayv2
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.connection_table import ConnectionTable
from infra.metrics import AUTHORIZER_REASONS, CONNECT_REASONS, build_metric

COLUMNS = 24  # width of a CloudWatch dashboard


class Dashboard(Construct):
    """A dashboard with the alarms, and rows of graphs for connections, messages, both functions and the table."""

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
            graph_connections(authorizer, websocket, stage),
            graph_messages(websocket, stage),
            graph_function("Authorizer", authorizer),
            graph_function("WebSocket function", websocket),
            graph_table(table),
        ):
            self.dashboard.add_widgets(*row)


Graphs = list[cloudwatch.GraphWidget]


def graph_connections(
    authorizer: lambda_.Function, websocket: lambda_.Function, stage: apigatewayv2.WebSocketStage
) -> Graphs:
    refusals = [
        build_metric("Refused", function, reason_class=reason, label=reason)
        for function, reasons in ((authorizer, AUTHORIZER_REASONS), (websocket, CONNECT_REASONS))
        for reason in reasons
    ]
    counts = [build_metric(name, websocket) for name in ("Accepted", "Expired", "Gone")]
    return [
        graph("Connections", stage.metric("ConnectCount", statistic="Sum"), *counts),
        graph("Refusal ratio", build_metric("Refused", authorizer, statistic="Average", label="of all decisions")),
        graph("Refusals by class of reasons", *refusals),
        graph("Keys unavailable", build_metric("KeysUnavailable", authorizer)),
    ]


def graph_messages(websocket: lambda_.Function, stage: apigatewayv2.WebSocketStage) -> Graphs:
    errors = [stage.metric(name, statistic="Sum") for name in ("IntegrationError", "ExecutionError", "ClientError")]
    return [
        graph("Messages", stage.metric("MessageCount", statistic="Sum")),
        graph("Errors", *errors, build_metric("EchoFailed", websocket)),
        graph("Integration latency p99", stage.metric("IntegrationLatency", statistic="p99")),
    ]


def graph_function(name: str, function: lambda_.Function) -> Graphs:
    return [
        graph(f"{name}: invocations", function.metric_invocations()),
        graph(f"{name}: errors and throttles", function.metric_errors(), function.metric_throttles()),
        graph(f"{name}: duration p99", function.metric_duration(statistic="p99")),
        graph(f"{name}: concurrency", function.metric("ConcurrentExecutions", statistic="Maximum")),
    ]


def graph_table(table: ConnectionTable) -> Graphs:
    return [
        graph("Table: throttled requests", *table.list_throttle_metrics().values()),
        graph("Table: consumed write capacity", *table.list_write_metrics()),
    ]


def graph(title: str, *metrics: cloudwatch.Metric) -> cloudwatch.GraphWidget:
    return cloudwatch.GraphWidget(title=title, left=[*metrics], width=COLUMNS // 4)
