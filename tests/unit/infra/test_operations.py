"""What the stack has for operators: saved queries, the access log, the dashboard, alarms and their mails."""

from __future__ import annotations

import json
import re
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from tests.fixtures.stack import (
    EVERY_OPTION,
    find_functions,
    find_resources,
    get_only_properties,
    render,
    synthesize_template,
)

Metric = tuple[str, str, str]  # namespace, name, dimensions

# Each metric that AWS documents or that the functions write, with the dimensions of its series.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-logging.html
# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/metrics-dimensions.html
OF_THE_API = {
    ("AWS/ApiGateway", name, "ApiId=api Stage=prod")
    for name in (
        "ConnectCount",
        "MessageCount",
        "IntegrationError",
        "ClientError",
        "ExecutionError",
        "IntegrationLatency",
    )
}
OF_THE_FUNCTIONS = {
    ("AWS/Lambda", name, f"FunctionName={function}")
    for name in ("Invocations", "Errors", "Duration", "Throttles", "ConcurrentExecutions")
    for function in ("authorizer", "websocket")
}
OF_THE_TABLE = {
    ("AWS/DynamoDB", "ThrottledRequests", "Operation=PutItem TableName=connections"),
    ("AWS/DynamoDB", "ThrottledRequests", "Operation=DeleteItem TableName=connections"),
    ("AWS/DynamoDB", "ConsumedWriteCapacityUnits", "TableName=connections"),
}
OF_THE_SLOTS = {
    ("AWS/DynamoDB", "ThrottledRequests", "Operation=UpdateItem TableName=slots"),
    ("AWS/DynamoDB", "ThrottledRequests", "Operation=GetItem TableName=slots"),
    ("AWS/DynamoDB", "ConsumedWriteCapacityUnits", "TableName=slots"),
}
OURS = {
    ("WebSocketApi", "Refused", "FunctionName=authorizer"),
    *(
        ("WebSocketApi", "Refused", f"FunctionName=authorizer ReasonClass={reason_class}")
        for reason_class in ("credential", "signature", "claims", "expired", "policy")
    ),
    ("WebSocketApi", "Refused", "FunctionName=websocket ReasonClass=connect"),
    ("WebSocketApi", "KeysUnavailable", "FunctionName=authorizer"),
    *(("WebSocketApi", name, "FunctionName=websocket") for name in ("Accepted", "Expired", "Gone", "EchoFailed")),
}
# Only an alarm needs it, because API Gateway counts what `$connect` refuses as an integration error.
REFUSED_BY_CONNECT = ("WebSocketApi", "Refused", "FunctionName=websocket")


@pytest.fixture(scope="module")
def template() -> Template:
    return synthesize_template()


@pytest.fixture(scope="module")
def full_template() -> Template:
    return synthesize_template(**EVERY_OPTION)


def map_references(template: Template) -> dict[str, str]:
    """Return the name of each resource that dimensions refer to, by the text of the reference."""
    (api,) = find_resources(template, "AWS::ApiGatewayV2::Api")
    tables = {
        id_: "connections" if "GlobalSecondaryIndexes" in table["Properties"] else "slots"
        for id_, table in find_resources(template, "AWS::DynamoDB::Table").items()
    }
    targets = {function["id"]: target for target, function in find_functions(template).items()}
    return {f"${{{id_}}}": name for id_, name in {api: "api", **tables, **targets}.items()}


def format_series(template: Template, namespace: str, name: str, dimensions: dict[str, Any]) -> Metric:
    names = map_references(template)
    values = {dimension: render(value) for dimension, value in dimensions.items()}
    return namespace, name, " ".join(f"{each}={names.get(values[each], values[each])}" for each in sorted(values))


# Logs


def test_saved_queries_read_all_logs_of_a_connection_in_the_order_of_time(template: Template) -> None:
    outputs = template.to_json()["Outputs"]
    log_groups = [outputs[name]["Value"] for name in ("AuthorizerLogGroup", "WebSocketLogGroup", "AccessLogGroup")]
    columns = (
        "fields @timestamp, @log, message, reason, status, routeKey, "
        "coalesce(apiRequestId, requestId) as apiGatewayRequestId, closeCode, connectionId, errorMessage"
    )
    order = "sort @timestamp asc\n| limit 1000"
    queries = [each["Properties"] for each in find_resources(template, "AWS::Logs::QueryDefinition").values()]

    assert [query["LogGroupNames"] for query in queries] == [log_groups, log_groups]
    assert {query["Name"]: query["QueryString"] for query in queries} == {
        "Stack/One connection": f'{columns}\n| filter connectionId = "CONNECTION_ID"\n| {order}',
        "Stack/One request": (
            f'{columns}\n| filter apiRequestId = "REQUEST_ID" or requestId = "REQUEST_ID"\n| {order}'
        ),
    }


def test_access_log_has_stable_names_for_what_api_gateway_documents(template: Template) -> None:
    """https://docs.aws.amazon.com/apigateway/latest/developerguide/websocket-api-logging.html"""
    stage = get_only_properties(find_resources(template, "AWS::ApiGatewayV2::Stage"))

    assert json.loads(stage["AccessLogSettings"]["Format"]) == {
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


# Dashboard


def find_dashboard_metrics(template: Template) -> dict[Metric, str]:
    """Return the statistic of each metric on the dashboard."""
    body = json.loads(
        render(get_only_properties(find_resources(template, "AWS::CloudWatch::Dashboard"))["DashboardBody"])
    )
    shown = {}
    for widget in body["widgets"]:
        for namespace, name, *rest in widget["properties"].get("metrics", []):
            *dimensions, options = rest if isinstance(rest[-1], dict) else [*rest, {}]
            pairs = dict(zip(dimensions[::2], dimensions[1::2], strict=True))
            shown[format_series(template, namespace, name, pairs)] = options.get("stat", "Average")
    return shown


@pytest.mark.parametrize(
    ("options", "metrics"),
    [
        ({}, OF_THE_API | OF_THE_FUNCTIONS | OF_THE_TABLE | OURS),
        (EVERY_OPTION, OF_THE_API | OF_THE_FUNCTIONS | OF_THE_TABLE | OF_THE_SLOTS | OURS),
    ],
    ids=["by default", "with every option"],
)
def test_dashboard_shows_every_metric_and_no_other(options: dict[str, Any], metrics: set[Metric]) -> None:
    assert find_dashboard_metrics(synthesize_template(**options)).keys() == metrics


def test_dashboard_shows_a_ratio_of_refusals_the_slowest_calls_and_sums(template: Template) -> None:
    shown = find_dashboard_metrics(template)
    averages = {metric for metric, statistic in shown.items() if statistic == "Average"}
    slowest = {metric[1] for metric, statistic in shown.items() if statistic == "p99"}
    maxima = {metric[1] for metric, statistic in shown.items() if statistic == "Maximum"}

    assert averages == {("WebSocketApi", "Refused", "FunctionName=authorizer")}
    assert slowest == {"IntegrationLatency", "Duration"}
    assert maxima == {"ConcurrentExecutions"}
    assert set(shown.values()) == {"Average", "p99", "Maximum", "Sum"}


def test_dashboard_shows_the_state_of_every_alarm(template: Template) -> None:
    body = json.loads(
        render(get_only_properties(find_resources(template, "AWS::CloudWatch::Dashboard"))["DashboardBody"])
    )
    (states,) = [widget for widget in body["widgets"] if widget["type"] == "alarm"]

    assert states["properties"]["alarms"] == [
        f"${{{id_}.Arn}}" for id_ in find_resources(template, "AWS::CloudWatch::Alarm")
    ]


# Alarms

FIVE_MINUTES, ONE_MINUTE = 300, 60

# Each alarm: namespace, metric and dimensions, statistic, period, threshold, and its section of the guide.
ALARMS = {
    "AuthorizerErrors": ("AWS/Lambda Errors FunctionName=authorizer", "Sum", FIVE_MINUTES, 1, "authorizer-errors"),
    "AuthorizerLatency": (
        "AWS/Lambda Duration FunctionName=authorizer",
        "p99",
        FIVE_MINUTES,
        5000,
        "authorizer-latency",
    ),
    "KeysUnavailable": (
        "WebSocketApi KeysUnavailable FunctionName=authorizer",
        "Sum",
        FIVE_MINUTES,
        1,
        "keys-unavailable",
    ),
    "ConnectionRate": (
        "WebSocketApi Refused FunctionName=authorizer",
        "SampleCount",
        ONE_MINUTE,
        24_000,
        "connection-rate",
    ),
    "ExecutionErrors": (
        "AWS/ApiGateway ExecutionError ApiId=api Stage=prod",
        "Sum",
        FIVE_MINUTES,
        1,
        "integration-errors",
    ),
    "WebSocketErrors": ("AWS/Lambda Errors FunctionName=websocket", "Sum", FIVE_MINUTES, 1, "websocket-errors"),
    "AuthorizerThrottles": ("AWS/Lambda Throttles FunctionName=authorizer", "Sum", FIVE_MINUTES, 1, "throttles"),
    "WebSocketThrottles": ("AWS/Lambda Throttles FunctionName=websocket", "Sum", FIVE_MINUTES, 1, "throttles"),
    **{
        f"Table{operation}Throttles": (
            f"AWS/DynamoDB ThrottledRequests Operation={operation} TableName=connections",
            "Sum",
            FIVE_MINUTES,
            1,
            "throttles",
        )
        for operation in ("PutItem", "DeleteItem")
    },
}
ALARMS_OF_SLOTS = {
    f"Table{operation}Throttles": (
        f"AWS/DynamoDB ThrottledRequests Operation={operation} TableName=slots",
        "Sum",
        FIVE_MINUTES,
        1,
        "throttles",
    )
    for operation in ("UpdateItem", "GetItem")
}
# Each alarm on a calculation: the expression, its metrics with statistics, the threshold, and its section of the guide.
CALCULATED = {
    "Refusals": (
        "IF(decisions >= 20, refused, 0)",
        {
            "decisions": "WebSocketApi Refused FunctionName=authorizer SampleCount 300",
            "refused": "WebSocketApi Refused FunctionName=authorizer Average 300",
        },
        0.5,
        "refusals",
    ),
    "IntegrationErrors": (
        "errors - FILL(refused, 0)",
        {
            "errors": "AWS/ApiGateway IntegrationError ApiId=api Stage=prod Sum 300",
            "refused": "WebSocketApi Refused FunctionName=websocket Sum 300",
        },
        5,
        "integration-errors",
    ),
}


def find_alarms(template: Template) -> dict[str, dict[str, Any]]:
    """Return the alarms by the ids of their constructs."""
    found = find_resources(template, "AWS::CloudWatch::Alarm").items()
    return {id_.removeprefix("OperationsAlarms")[:-8]: alarm["Properties"] for id_, alarm in found}


def format_metric(template: Template, properties: dict[str, Any]) -> Metric:
    dimensions = {each["Name"]: each["Value"] for each in properties["Dimensions"]}
    return format_series(template, properties["Namespace"], properties["MetricName"], dimensions)


def get_anchor(alarm: dict[str, Any]) -> str:
    return str(alarm["AlarmDescription"]).rpartition("docs/operate.md#")[2]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, ALARMS), (EVERY_OPTION, ALARMS | ALARMS_OF_SLOTS)],
    ids=["by default", "with every option"],
)
def test_alarms_on_a_metric(options: dict[str, Any], expected: dict[str, tuple[Any, ...]]) -> None:
    template = synthesize_template(**options)

    assert {
        id_: (
            " ".join(format_metric(template, alarm)),
            alarm.get("Statistic") or alarm["ExtendedStatistic"],
            alarm["Period"],
            alarm["Threshold"],
            get_anchor(alarm),
        )
        for id_, alarm in find_alarms(template).items()
        if "Metrics" not in alarm
    } == expected


def test_alarms_on_a_calculation(template: Template) -> None:
    calculated = {}
    for id_, alarm in find_alarms(template).items():
        if "Metrics" in alarm:
            (expression,) = [each for each in alarm["Metrics"] if each["ReturnData"]]
            inputs = {each["Id"]: each["MetricStat"] for each in alarm["Metrics"] if "MetricStat" in each}
            metrics = {
                name: " ".join((*format_metric(template, each["Metric"]), each["Stat"], str(each["Period"])))
                for name, each in inputs.items()
            }
            calculated[id_] = (expression["Expression"], metrics, alarm["Threshold"], get_anchor(alarm))

    assert calculated == CALCULATED


def test_alarm_needs_two_bad_periods_of_three_and_none_without_data(full_template: Template) -> None:
    keys = ("ComparisonOperator", "EvaluationPeriods", "DatapointsToAlarm", "TreatMissingData")

    assert {
        id_: tuple(alarm[key] for key in keys) for id_, alarm in find_alarms(full_template).items()
    } == dict.fromkeys(
        [*ALARMS, *ALARMS_OF_SLOTS, *CALCULATED], ("GreaterThanOrEqualToThreshold", 3, 2, "notBreaching")
    )


def test_alarm_watches_what_is_on_the_dashboard(full_template: Template) -> None:
    """The dashboard shows only metrics that AWS documents or the functions write."""
    watched = {
        format_metric(full_template, each)
        for alarm in find_alarms(full_template).values()
        for each in (
            [one["MetricStat"]["Metric"] for one in alarm.get("Metrics", []) if "MetricStat" in one] or [alarm]
        )
    }

    assert watched - find_dashboard_metrics(full_template).keys() == {REFUSED_BY_CONNECT}


def test_alarm_says_what_it_means_what_to_do_first_and_where_to_read_on(full_template: Template) -> None:
    for id_, alarm in find_alarms(full_template).items():
        assert re.fullmatch(
            r"[A-Z][^.]+\. First [a-z][^.]+\. See docs/operate\.md#[a-z-]+", alarm["AlarmDescription"]
        ), id_


def test_every_section_of_the_guide_has_an_alarm(template: Template) -> None:
    assert {get_anchor(alarm) for alarm in find_alarms(template).values()} == {
        "authorizer-errors",
        "authorizer-latency",
        "refusals",
        "integration-errors",
        "throttles",
        "connection-rate",
        "keys-unavailable",
        "websocket-errors",
    }


@pytest.mark.parametrize(
    ("rate", "threshold"), [(5, 240), (500, 24_000), (10_000, 24_000)], ids=["throttle", "both", "quota"]
)
def test_alarm_on_the_connection_rate_comes_before_throttle_and_quota(rate: int, threshold: int) -> None:
    throttle = cdk.aws_apigatewayv2.ThrottleSettings(rate_limit=rate, burst_limit=rate)

    assert find_alarms(synthesize_template(throttle=throttle))["ConnectionRate"]["Threshold"] == threshold


# Mails


def test_alarms_have_no_action_without_an_address(template: Template) -> None:
    resources = template.to_json()["Resources"].values()

    assert [each for each in resources if each["Type"].startswith("AWS::SNS::")] == []
    assert [id_ for id_, alarm in find_alarms(template).items() if alarm.keys() & {"AlarmActions", "OKActions"}] == []


def test_every_alarm_is_sent_to_the_address(full_template: Template) -> None:
    (topic,) = find_resources(full_template, "AWS::SNS::Topic")

    assert get_only_properties(find_resources(full_template, "AWS::SNS::Subscription")) == {
        "TopicArn": {"Ref": topic},
        "Protocol": "email",
        "Endpoint": "operator@example.com",
    }
    for alarm in find_alarms(full_template).values():
        assert alarm["AlarmActions"] == [{"Ref": topic}]


def test_only_the_alarms_may_publish_and_only_over_tls(full_template: Template) -> None:
    (topic,) = find_resources(full_template, "AWS::SNS::Topic")
    policy = get_only_properties(find_resources(full_template, "AWS::SNS::TopicPolicy"))
    arns = [{"Fn::GetAtt": [id_, "Arn"]} for id_ in find_resources(full_template, "AWS::CloudWatch::Alarm")]
    statements = policy["PolicyDocument"]["Statement"]

    assert policy["Topics"] == [{"Ref": topic}]
    assert [{key: value for key, value in each.items() if key != "Sid"} for each in statements] == [
        {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "sns:Publish",
            "Resource": {"Ref": topic},
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        },
        {
            "Effect": "Allow",
            "Principal": {"Service": "cloudwatch.amazonaws.com"},
            "Action": "sns:Publish",
            "Resource": {"Ref": topic},
            "Condition": {"ArnEquals": {"aws:SourceArn": arns}},
        },
    ]
