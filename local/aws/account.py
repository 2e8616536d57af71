"""The account and region that a template's resources belong to, and their ARNs."""

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
    """Return the partitions of AWS, as botocore knows them."""
    return list(get_session().get_data("partitions")["partitions"])


@dataclass(frozen=True)
class Account:
    """An account, seen in one region. The defaults are those of a template that is bound to none."""

    id: str = "000000000000"
    region: str = "us-east-1"
    partition: str = "aws"
    url_suffix: str = "amazonaws.com"

    @classmethod
    def of(cls, id_: str | None, region: str | None) -> Self:
        """Return the account, with the partition that its region is in; the default for what is None."""
        id_, region = id_ or cls.id, region or cls.region
        for partition in load_partitions():
            if re.match(partition["regionRegex"], region):
                return cls(id_, region, partition["id"], partition["outputs"]["dnsSuffix"])
        return cls(id_, region)

    def format(self, template: str, id_: str) -> str:
        """Return an ARN, URL or name of a resource by a template such as those of `ARNS`."""
        return template.format(
            partition=self.partition,
            region=self.region,
            account=self.id,
            url_suffix=self.url_suffix,
            id=id_,
            name=re.split("[:/]", id_)[-1],
        )

    def build_arn(self, type_: str, id_: str) -> str:
        """Return the ARN of a resource by its type and physical id. KeyError for a type without ARNs."""
        return self.format(ARNS[type_], id_)
