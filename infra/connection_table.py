"""Who holds which connection."""

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.findings import accept

USER_INDEX = "userIdIndex"


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
        removal_policy: cdk.RemovalPolicy,
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
                removal_policy=removal_policy,
            )

        self.table = table("Table", connection_id)
        self.table.add_global_secondary_index(index_name=USER_INDEX, partition_key=user_id)
        self.max_connections_per_user = max_connections_per_user
        if max_connections_per_user is not None:
            self.users = table("Users", user_id)

    def track_connections_from(self, function: lambda_.Function) -> None:
        """The function may add and remove connections, and nothing else."""
        function.add_environment("CONNECTION_TABLE_NAME", self.table.table_name)
        allow(function, self.table, "dynamodb:PutItem", "dynamodb:DeleteItem")
        if self.max_connections_per_user is not None:
            function.add_environment("MAX_CONNECTIONS_PER_USER", str(self.max_connections_per_user))
            function.add_environment("USER_TABLE_NAME", self.users.table_name)
            allow(function, self.users, "dynamodb:UpdateItem", "dynamodb:GetItem")


def allow(function: lambda_.Function, table: dynamodb.Table, *actions: str) -> None:
    """On the table alone; `grant()` would add its indexes."""
    function.add_to_role_policy(iam.PolicyStatement(actions=[*actions], resources=[table.table_arn]))
