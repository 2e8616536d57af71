"""The AWS account and region of a template, and the ARNs of its resources."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

from local.aws.models import get_session

TABLE = "arn:{partition}:dynamodb:{region}:{account}:table/{id}"
ARNS = {
    "AWS::Cognito::UserPool": "arn:{partition}:cognito-idp:{region}:{account}:userpool/{id}",
    "AWS::DynamoDB::GlobalTable": TABLE,
    "AWS::DynamoDB::Table": TABLE,
    "AWS::IAM::ManagedPolicy": "arn:{partition}:iam::{account}:policy/{id}",
    "AWS::IAM::Role": "arn:{partition}:iam::{account}:role/{id}",
    "AWS::KMS::Key": "arn:{partition}:kms:{region}:{account}:key/{id}",
    "AWS::Lambda::Function": "arn:{partition}:lambda:{region}:{account}:function:{id}",
    "AWS::Logs::LogGroup": "arn:{partition}:logs:{region}:{account}:log-group:{id}:*",
    "AWS::S3::Bucket": "arn:{partition}:s3:::{id}",
    "AWS::SNS::Topic": "arn:{partition}:sns:{region}:{account}:{id}",
    "AWS::SQS::Queue": "arn:{partition}:sqs:{region}:{account}:{id}",
    "AWS::SecretsManager::Secret": "arn:{partition}:secretsmanager:{region}:{account}:secret:{id}",
}


@cache
def load_partitions() -> list[dict[str, Any]]:
    """Return AWS's partitions from botocore's data."""
    return list(get_session().get_data("partitions")["partitions"])


@dataclass(frozen=True)
class Account:
    """An account and a region. The defaults are for a template that names no account and no region."""

    id: str = "000000000000"
    region: str = "us-east-1"
    partition: str = "aws"
    url_suffix: str = "amazonaws.com"

    @classmethod
    def of(cls, id_: str | None, region: str | None) -> Self:
        """Return the account, with the partition of the region. An id or region of None gets its default."""
        id_, region = id_ or cls.id, region or cls.region
        for partition in load_partitions():
            if re.match(partition["regionRegex"], region):
                return cls(id_, region, partition["id"], partition["outputs"]["dnsSuffix"])
        return cls(id_, region)

    def format(self, template: str, id_: str) -> str:
        """Return a resource's ARN, URL or name: the template, such as one of `ARNS`, with its fields filled in."""
        return template.format(
            partition=self.partition,
            region=self.region,
            account=self.id,
            url_suffix=self.url_suffix,
            id=id_,
            name=re.split("[:/]", id_)[-1],
        )

    def build_arn(self, type_: str, id_: str) -> str:
        """Return the ARN of a resource, given its type and physical id. Raise KeyError for a type without ARNs."""
        return self.format(ARNS[type_], id_)
