"""The table of connections, and the table of each user's slots."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.findings import accept

USER_INDEX = "userIdIndex"
ROW_WRITES = ("PutItem", "DeleteItem")  # operations of the websocket function on a connection's row
SLOT_CALLS = ("UpdateItem", "GetItem")  # and on the slots of its user


class ConnectionTable(Construct):
    """The table that says which user has which WebSocket connections. Rows that nobody deletes expire at `removedAt`.

    Args:
        max_connections_per_user: how many connections a user may have, counted in a second table; None: any number.

    Raises:
        ValueError: max_connections_per_user is less than 1.
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
        accept(
            self, "DDB3", "A row ends with its connection, after two hours at most, so a restored row would be wrong."
        )
        connection_id, user_id = (
            dynamodb.Attribute(name=name, type=dynamodb.AttributeType.STRING) for name in ("connectionId", "userId")
        )

        def create_table(id_: str, partition_key: dynamodb.Attribute) -> dynamodb.Table:
            return dynamodb.Table(
                self,
                id_,
                partition_key=partition_key,
                billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
                time_to_live_attribute="removedAt",
                removal_policy=cdk.RemovalPolicy.DESTROY,  # no row outlives the API
            )

        self.table = create_table("Table", connection_id)
        self.table.add_global_secondary_index(index_name=USER_INDEX, partition_key=user_id)
        self.max_connections_per_user = max_connections_per_user
        self.users = create_table("Users", user_id) if max_connections_per_user is not None else None

    def track_connections_from(self, function: lambda_.Function) -> None:
        """Let the function add and remove connections, and do nothing else."""
        function.add_environment("CONNECTION_TABLE_NAME", self.table.table_name)
        grant(function, self.table, ROW_WRITES)
        if self.users:
            function.add_environment("MAX_CONNECTIONS_PER_USER", str(self.max_connections_per_user))
            function.add_environment("USER_TABLE_NAME", self.users.table_name)
            grant(function, self.users, SLOT_CALLS)

    def allow_operators(self, policy: iam.ManagedPolicy) -> None:
        """Let operators find and list connections, write who ended one (`endedBy`), and delete rows."""
        index = f"{self.table.table_arn}/index/{USER_INDEX}"
        row = ("Scan", "GetItem", "UpdateItem", "DeleteItem")
        policy.add_statements(build_statement(index, "Query"), build_statement(self.table.table_arn, *row))
        if self.users:
            policy.add_statements(build_statement(self.users.table_arn, "UpdateItem"))

    def list_throttle_metrics(self) -> dict[str, cloudwatch.Metric]:
        """Return the throttled requests of each operation that the websocket function calls, those of the index included."""
        calls = [(self.table, operation) for operation in ROW_WRITES]
        if self.users:
            calls += [(self.users, operation) for operation in SLOT_CALLS]
        return {operation: table.metric_throttled_requests_for_operation(operation) for table, operation in calls}

    def list_write_metrics(self) -> list[cloudwatch.Metric]:
        """Return the write capacity that each table consumes."""
        return [
            table.metric_consumed_write_capacity_units(label=f"{name} write units")
            for name, table in (("Connections", self.table), ("Slots", self.users))
            if table
        ]


def grant(function: lambda_.Function, table: dynamodb.Table, operations: Sequence[str]) -> None:
    """Allow the function these operations on the table. The CDK's `grant()` would add the table's indexes."""
    function.add_to_role_policy(build_statement(table.table_arn, *operations))


def build_statement(resource: str, *operations: str) -> iam.PolicyStatement:
    return iam.PolicyStatement(actions=[f"dynamodb:{operation}" for operation in operations], resources=[resource])
