"""Who holds which connection."""

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

USER_INDEX = "userIdIndex"


class ConnectionTable(Construct):
    """Which Cognito user holds which WebSocket connection; rows that were left behind expire by `removedAt`."""

    def __init__(self, scope: Construct, id_: str, *, removal_policy: cdk.RemovalPolicy) -> None:
        super().__init__(scope, id_)
        self.table = dynamodb.Table(
            self,
            "Table",
            partition_key=dynamodb.Attribute(name="connectionId", type=dynamodb.AttributeType.STRING),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            time_to_live_attribute="removedAt",
            removal_policy=removal_policy,
        )
        self.table.add_global_secondary_index(
            index_name=USER_INDEX,
            partition_key=dynamodb.Attribute(name="userId", type=dynamodb.AttributeType.STRING),
        )

    def track_connections_from(self, function: lambda_.Function) -> None:
        """The function may add and remove connections, and nothing else."""
        function.add_environment("CONNECTION_TABLE_NAME", self.table.table_name)
        function.add_to_role_policy(
            iam.PolicyStatement(
                actions=["dynamodb:PutItem", "dynamodb:DeleteItem"],
                resources=[self.table.table_arn],  # not grant(): that adds the index
            )
        )
