"""Creates the resources of a template that functions call: user pools, app clients and tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local.aws.ministack import LocalAws
from local.cloudformation.template import Template
from local.errors import TemplateError

Properties = dict[str, Any]


@dataclass(frozen=True)
class Created:
    """What was created.

    Attributes:
        physical_ids: by logical id.
        expiring: the tables with a time to live, and its attribute.
    """

    physical_ids: dict[str, str] = field(default_factory=dict)
    expiring: dict[str, str] = field(default_factory=dict)


def create_resources(template: Template, aws: LocalAws) -> Created:
    """Create the template's user pools, app clients and tables; they refer to each other in this order.

    Raises:
        TemplateError: a property is refused; the message names the resource.
    """
    created = Created()
    for type_, create in CREATE.items():
        for logical_id, properties in template.with_physical_ids(created.physical_ids).of_type(type_):
            try:
                create(aws, created, logical_id, template.physical_ids[logical_id], properties)
            except (BotoCoreError, ClientError) as error:
                raise TemplateError(f"{logical_id}: {error}") from error
    return created


def create_user_pool(aws: LocalAws, created: Created, logical_id: str, name: str, properties: Properties) -> None:
    parameters = {"PoolName": name, **rename(properties, "UserPoolName", "PoolName")}
    pool = aws.client("cognito-idp").create_user_pool(**parameters)
    created.physical_ids[logical_id] = pool["UserPool"]["Id"]


def create_app_client(aws: LocalAws, created: Created, logical_id: str, name: str, properties: Properties) -> None:
    client = aws.client("cognito-idp").create_user_pool_client(**{"ClientName": name, **properties})
    created.physical_ids[logical_id] = client["UserPoolClient"]["ClientId"]


def create_table(aws: LocalAws, created: Created, logical_id: str, name: str, properties: Properties) -> None:
    time_to_live = properties.pop("TimeToLiveSpecification", None)
    dynamodb = aws.client("dynamodb")
    table = dynamodb.create_table(**{"TableName": name, **properties})["TableDescription"]["TableName"]
    created.physical_ids[logical_id] = table
    if time_to_live:
        dynamodb.update_time_to_live(TableName=table, TimeToLiveSpecification=time_to_live)
        if time_to_live["Enabled"]:
            created.expiring[table] = time_to_live["AttributeName"]


def rename(properties: Properties, old: str, new: str) -> Properties:
    return {new if name == old else name: value for name, value in properties.items()}


CREATE = {
    "AWS::Cognito::UserPool": create_user_pool,
    "AWS::Cognito::UserPoolClient": create_app_client,
    "AWS::DynamoDB::Table": create_table,
}
