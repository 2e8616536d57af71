"""The alarms, and the SNS topic that sends them to an operator."""

from collections.abc import Iterable

import aws_cdk as cdk
from aws_cdk import aws_apigatewayv2 as apigatewayv2
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from infra.connection_table import ConnectionTable
from infra.metrics import build_metric

# https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html
NEW_CONNECTIONS_A_SECOND = 500  # default quota of an account in a region
CONNECTION_RATE_SHARE = 0.8  # of the lower of the quota and the stage's throttle
# A healthy decision takes milliseconds, or up to 3 s if keys are downloaded. At the timeout of 10 s the handshake fails.
# Half the timeout is far above a healthy decision, and leaves time to act.
AUTHORIZER_LATENCY_SHARE = 0.5  # of the authorizer's timeout
REFUSAL_RATIO = 0.5
MIN_DECISIONS = 20  # in five minutes; with fewer decisions, a few bad tokens would raise the alarm
# In five minutes. The alarm subtracts one metric from another. They arrive at different times, which looks like a few errors.
INTEGRATION_ERRORS = 5


class Alarms(Construct):
    """Alarms for everything that an operator must act on. Each says what it means, what to do first and where to read on.

    An alarm fires if two of three periods are bad, so that a single failure wakes nobody. Missing data counts as good,
    because nothing is measured while there are no clients.

    Args:
        email: address that gets the alarms; None: alarms have no action.
    """

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        authorizer: lambda_.Function,
        websocket: lambda_.Function,
        stage: apigatewayv2.WebSocketStage,
        throttle: apigatewayv2.ThrottleSettings,
        table: ConnectionTable,
        email: str | None,
    ) -> None:
        super().__init__(scope, id_)
        self.all: list[cloudwatch.Alarm] = []
        self._watch_authorizer(authorizer)
        self._watch_connection_rate(authorizer, throttle)
        self._watch_messages(websocket, stage)
        self._watch_throttles(
            {"Authorizer": authorizer.metric_throttles(), "WebSocket": websocket.metric_throttles()}
            | {f"Table{name}": metric for name, metric in table.list_throttle_metrics().items()}
        )
        if email:
            self._send_to(email)

    def _watch_authorizer(self, authorizer: lambda_.Function) -> None:
        self._alarm(
            "AuthorizerErrors",
            authorizer.metric_errors(),
            threshold=1,
            anchor="authorizer-errors",
            description="The authorizer fails, so clients get 500 and cannot connect. "
            "First read the ERROR lines of its log group.",
        )
        assert authorizer.timeout is not None
        self._alarm(
            "AuthorizerLatency",
            authorizer.metric_duration(statistic="p99"),
            threshold=AUTHORIZER_LATENCY_SHARE * authorizer.timeout.to_milliseconds(),
            anchor="authorizer-latency",
            description="The slowest decisions take half the authorizer's timeout or more; at the timeout clients get "
            "500. First look for slow downloads of keys in the traces.",
        )
        self._alarm(
            "Refusals",
            cloudwatch.MathExpression(
                expression=f"IF(decisions >= {MIN_DECISIONS}, refused, 0)",
                using_metrics={
                    "decisions": build_metric("Refused", authorizer, statistic="SampleCount"),
                    "refused": build_metric("Refused", authorizer, statistic="Average"),
                },
                label="Refusal ratio",
            ),
            threshold=REFUSAL_RATIO,
            anchor="refusals",
            description="The authorizer refuses at least half of all handshakes. First see on the dashboard which "
            "class of reasons grows: claims and policy point to our configuration, credential and signature to an attack.",
        )
        self._alarm(
            "KeysUnavailable",
            build_metric("KeysUnavailable", authorizer),
            threshold=1,
            anchor="keys-unavailable",
            description="The authorizer cannot download the user pool's keys and has none cached, so clients get 500. "
            "First check whether Cognito has an incident in this region.",
        )

    def _watch_connection_rate(self, authorizer: lambda_.Function, throttle: apigatewayv2.ThrottleSettings) -> None:
        limit = min(throttle.rate_limit or NEW_CONNECTIONS_A_SECOND, NEW_CONNECTIONS_A_SECOND)
        self._alarm(
            "ConnectionRate",
            # Each decision is a sample of Refused. ConnectCount does not count refused handshakes.
            build_metric("Refused", authorizer, statistic="SampleCount", period=cdk.Duration.minutes(1)),
            threshold=CONNECTION_RATE_SHARE * limit * 60,
            anchor="connection-rate",
            description="Handshakes reach 80 % of the rate that API Gateway allows; above 100 % clients get 429. "
            "First find out whether clients reconnect all at once.",
        )

    def _watch_messages(self, websocket: lambda_.Function, stage: apigatewayv2.WebSocketStage) -> None:
        self._alarm(
            "IntegrationErrors",
            cloudwatch.MathExpression(
                # API Gateway also counts the handshakes that `$connect` refuses on purpose (400, 429).
                expression="errors - FILL(refused, 0)",
                using_metrics={
                    "errors": stage.metric("IntegrationError", statistic="Sum"),
                    "refused": build_metric("Refused", websocket),
                },
                label="Integration errors other than refusals",
            ),
            threshold=INTEGRATION_ERRORS,
            anchor="integration-errors",
            description="API Gateway gets errors from the websocket function, so handshakes and messages fail. "
            "First see whether the function fails as well, then read the access log's integrationError.",
        )
        self._alarm(
            "ExecutionErrors",
            stage.metric("ExecutionError", statistic="Sum"),
            threshold=1,
            anchor="integration-errors",
            description="API Gateway meets errors when it calls the websocket function, such as a missing permission. "
            "First read the access log's errorMessage and errorResponseType.",
        )
        self._alarm(
            "WebSocketErrors",
            websocket.metric_errors(),
            threshold=1,
            anchor="websocket-errors",
            description="The websocket function fails, so handshakes get 502 and messages an error frame. "
            "First read the ERROR lines of its log group: their reason is the class of the error.",
        )

    def _watch_throttles(self, throttles: dict[str, cloudwatch.Metric]) -> None:
        # One alarm for each resource, not one for the sum: a resource without throttling may send no data.
        for name, metric in throttles.items():
            self._alarm(
                f"{name}Throttles",
                metric,
                threshold=1,
                anchor="throttles",
                description="AWS throttles a function or a table, so handshakes or messages fail. "
                "First compare the function's concurrency, or the table's traffic, with the quotas.",
            )

    def _alarm(self, id_: str, metric: cloudwatch.IMetric, *, threshold: float, anchor: str, description: str) -> None:
        self.all.append(
            cloudwatch.Alarm(
                self,
                id_,
                metric=metric,
                comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
                threshold=threshold,
                evaluation_periods=3,
                datapoints_to_alarm=2,
                treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
                alarm_description=f"{description} See docs/operate.md#{anchor}",
            )
        )

    def _send_to(self, email: str) -> None:
        topic = AlarmTopic(self, "Topic", alarms=self.all)
        topic.topic.add_subscription(subscriptions.EmailSubscription(email))
        for alarm in self.all:
            alarm.add_alarm_action(actions.SnsAction(topic.topic))


class AlarmTopic(Construct):
    """An SNS topic whose policy lets only these alarms publish.

    It is not encrypted at rest, because CloudWatch may not use the key that AWS manages for SNS, and a key of our own costs
    more than all the alarms. The mails contain nothing secret.
    """

    def __init__(self, scope: Construct, id_: str, *, alarms: Iterable[cloudwatch.Alarm]) -> None:
        super().__init__(scope, id_)
        self.topic = sns.Topic(self, "Topic", enforce_ssl=True)
        # This policy replaces the default one, which lets every alarm of the account publish.
        self.topic.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[self.topic.topic_arn],
                conditions={"ArnEquals": {"aws:SourceArn": [alarm.alarm_arn for alarm in alarms]}},
            )
        )
