"""The metrics that the functions write with their log lines, in CloudWatch's embedded metric format."""

from typing import Any

from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_lambda as lambda_

NAMESPACE = "WebSocketApi"
# The values of the dimension ReasonClass: why a function refuses a connection.
AUTHORIZER_REASONS = ("credential", "signature", "claims", "expired", "policy")
CONNECT_REASONS = ("connect",)


def build_metric(
    name: str,
    function: lambda_.IFunction,
    *,
    reason_class: str | None = None,
    statistic: str = "Sum",
    **options: Any,
) -> cloudwatch.Metric:
    """Return a metric of this function, or its series for one class of reasons. Only `Refused` has such series."""
    dimensions = {"FunctionName": function.function_name}
    if reason_class:
        dimensions["ReasonClass"] = reason_class
    return cloudwatch.Metric(
        namespace=NAMESPACE, metric_name=name, dimensions_map=dimensions, statistic=statistic, **options
    )
