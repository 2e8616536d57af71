"""Who holds which connection."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.findings import accept

USER_INDEX = "userIdIndex"
ROW_WRITES = ("PutItem", "DeleteItem")  # what the websocket function does with a connection's row
SLOT_CALLS = ("UpdateItem", "GetItem")  # and with the slots of its user


class ConnectionTable(Construct):
    """Which Cognito user holds which WebSocket connection; rows that were left behind expire by `removedAt`.

    Args:
        max_connections_per_user: how many connections a user may hold, counted in a table of its own; None: any number.

    Raises:
        ValueError: a user may hold no connection at all.
    """

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        max_connections_per_user: int | None,
    ) -> None:
        super().__init__(scope, id_)
        if max_connections_per_user is not None and max_connections_per_user < 1:
            raise ValueError(f"max_connections_per_user is {max_connections_per_user}, it must be 1 or more")
        accept(self, "DDB3", "A row ends with its connection, after two hours at most: restored, it would be wrong.")
        connection_id, user_id = (
            dynamodb.Attribute(name=name, type=dynamodb.AttributeType.STRING) for name in ("connectionId", "userId")
        )

        def table(id_: str, partition_key: dynamodb.Attribute) -> dynamodb.Table:
            return dynamodb.Table(
                self,
                id_,
                partition_key=partition_key,
                billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
                time_to_live_attribute="removedAt",
                removal_policy=cdk.RemovalPolicy.DESTROY,  # no row outlives the API
            )

        self.table = table("Table", connection_id)
        self.table.add_global_secondary_index(index_name=USER_INDEX, partition_key=user_id)
        self.max_connections_per_user = max_connections_per_user
        self.users = table("Users", user_id) if max_connections_per_user is not None else None

    def track_connections_from(self, function: lambda_.Function) -> None:
        """The function may add and remove connections, and nothing else."""
        function.add_environment("CONNECTION_TABLE_NAME", self.table.table_name)
        allow(function, self.table, ROW_WRITES)
        if self.users:
            function.add_environment("MAX_CONNECTIONS_PER_USER", str(self.max_connections_per_user))
            function.add_environment("USER_TABLE_NAME", self.users.table_name)
            allow(function, self.users, SLOT_CALLS)

    def allow_operators(self, policy: iam.ManagedPolicy) -> None:
        """Operators may find and list connections, note who ended one (`endedBy`), and delete rows."""
        index = f"{self.table.table_arn}/index/{USER_INDEX}"
        row = ("Scan", "GetItem", "UpdateItem", "DeleteItem")
        policy.add_statements(statement(index, "Query"), statement(self.table.table_arn, *row))
        if self.users:
            policy.add_statements(statement(self.users.table_arn, "UpdateItem"))

    def throttled_requests(self) -> dict[str, cloudwatch.Metric]:
        """Return the metric of each operation that the websocket function calls; it includes throttles by the index."""
        calls = [(self.table, operation) for operation in ROW_WRITES]
        if self.users:
            calls += [(self.users, operation) for operation in SLOT_CALLS]
        return {operation: table.metric_throttled_requests_for_operation(operation) for table, operation in calls}

    def consumed_writes(self) -> list[cloudwatch.Metric]:
        """Return the write capacity that each table consumes."""
        return [
            table.metric_consumed_write_capacity_units(label=f"{name} write units")
            for name, table in (("Connections", self.table), ("Slots", self.users))
            if table
        ]


def allow(function: lambda_.Function, table: dynamodb.Table, operations: Sequence[str]) -> None:
    """On the table alone; `grant()` would add its indexes."""
    function.add_to_role_policy(statement(table.table_arn, *operations))


def statement(resource: str, *operations: str) -> iam.PolicyStatement:
    return iam.PolicyStatement(actions=[f"dynamodb:{operation}" for operation in operations], resources=[resource])
