"""The account and region that a template's resources belong to, and their ARNs."""

from __future__ import annotations

from dataclasses import dataclass

ARNS = {
    "AWS::Cognito::UserPool": "arn:{partition}:cognito-idp:{region}:{account}:userpool/{id}",
    "AWS::DynamoDB::Table": "arn:{partition}:dynamodb:{region}:{account}:table/{id}",
    "AWS::IAM::Role": "arn:{partition}:iam::{account}:role/{id}",
    "AWS::Lambda::Function": "arn:{partition}:lambda:{region}:{account}:function:{id}",
    "AWS::Logs::LogGroup": "arn:{partition}:logs:{region}:{account}:log-group:{id}:*",
}


@dataclass(frozen=True)
class Account:
    """An account, seen in one region. The defaults are those of a template that is bound to none."""

    id: str = "000000000000"
    region: str = "us-east-1"
    partition: str = "aws"
    url_suffix: str = "amazonaws.com"

    def arn(self, type_: str, id_: str) -> str:
        """Return the ARN of a resource by its type and physical id. KeyError for a type without ARNs."""
        return ARNS[type_].format(partition=self.partition, region=self.region, account=self.id, id=id_)
