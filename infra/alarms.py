"""The alarms, and the topic that sends them to an operator."""

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
from infra.metrics import count

# https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html
NEW_CONNECTIONS_A_SECOND = 500  # default quota of an account in a region
CONNECTION_RATE_SHARE = 0.8  # of the lower of the quota and the stage's throttle
# A decision takes milliseconds, or up to 3 s if it has to download keys. At the timeout, 10 s, Lambda ends the function
# and the handshake fails; API Gateway would wait for 29 s. Half the timeout is far above a healthy decision, and early enough to act.
AUTHORIZER_LATENCY_SHARE = 0.5  # of the authorizer's timeout
REFUSAL_RATIO = 0.5
MIN_DECISIONS = 20  # in five minutes; with fewer, a few bad tokens are most of the traffic
INTEGRATION_ERRORS = (
    5  # in five minutes: the metrics of the difference arrive at different times, which looks like a few
)


class Alarms(Construct):
    """Alarms on what an operator has to act on; they say what it means, what to do first, and where to read on.

    Each fires after two bad periods of three, so that a single failure wakes nobody. Missing data is good: without
    clients nothing is measured.

    Args:
        email: where alarms are sent; None: alarms have no action.
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
            | {f"Table{name}": metric for name, metric in table.throttled_requests().items()}
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
                    "decisions": count("Refused", authorizer, statistic="SampleCount"),
                    "refused": count("Refused", authorizer, statistic="Average"),
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
            count("KeysUnavailable", authorizer),
            threshold=1,
            anchor="keys-unavailable",
            description="The authorizer cannot download the user pool's keys and has none cached, so clients get 500. "
            "First check whether Cognito has an incident in this region.",
        )

    def _watch_connection_rate(self, authorizer: lambda_.Function, throttle: apigatewayv2.ThrottleSettings) -> None:
        limit = min(throttle.rate_limit or NEW_CONNECTIONS_A_SECOND, NEW_CONNECTIONS_A_SECOND)
        self._alarm(
            "ConnectionRate",
            # Every decision is a sample of Refused; ConnectCount would leave out the handshakes that were refused.
            count("Refused", authorizer, statistic="SampleCount", period=cdk.Duration.minutes(1)),
            threshold=CONNECTION_RATE_SHARE * limit * 60,
            anchor="connection-rate",
            description="Handshakes reach 80 % of the rate that API Gateway allows; above 100 % clients get 429. "
            "First find out whether clients reconnect all at once.",
        )

    def _watch_messages(self, websocket: lambda_.Function, stage: apigatewayv2.WebSocketStage) -> None:
        self._alarm(
            "IntegrationErrors",
            cloudwatch.MathExpression(
                # What `$connect` refuses on purpose (400, 429) is an integration error to API Gateway, too.
                expression="errors - FILL(refused, 0)",
                using_metrics={
                    "errors": stage.metric("IntegrationError", statistic="Sum"),
                    "refused": count("Refused", websocket),
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
        # An alarm for each, not one for their sum: a resource that is not throttled may send no data at all.
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
    """A topic to which these alarms may publish, and nobody else by the topic's policy.

    It is not encrypted at rest: CloudWatch may not use the key that AWS manages for SNS, and a key of our own costs more
    than all of these alarms. The mails have nothing secret.
    """

    def __init__(self, scope: Construct, id_: str, *, alarms: Iterable[cloudwatch.Alarm]) -> None:
        super().__init__(scope, id_)
        self.topic = sns.Topic(self, "Topic", enforce_ssl=True)
        # A policy of its own replaces the default policy, which lets alarms of the account publish.
        self.topic.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[self.topic.topic_arn],
                conditions={"ArnEquals": {"aws:SourceArn": [alarm.alarm_arn for alarm in alarms]}},
            )
        )
