"""Creates a template's user pools, app clients, groups and tables in the local AWS."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from local.aws.ministack import LocalAws
from local.cloudformation.resource_types import CREATED
from local.cloudformation.template import Template
from local.errors import TemplateError

if TYPE_CHECKING:
    from types_boto3_cognito_idp import CognitoIdentityProviderClient
    from types_boto3_dynamodb import DynamoDBClient

Properties = dict[str, Any]


@dataclass(frozen=True)
class CreatedResources:
    """The resources that were created.

    Attributes:
        physical_ids: their physical ids by logical id.
        expiring: the attribute of the time to live by table, for the tables that have one.
    """

    physical_ids: dict[str, str] = field(default_factory=dict)
    expiring: dict[str, str] = field(default_factory=dict)


def create_resources(template: Template, aws: LocalAws) -> CreatedResources:
    """Create the template's user pools with their app clients and groups, and its tables.

    Raises:
        TemplateError: the local AWS refuses a property. The message names the resource.
    """
    created = CreatedResources()
    for type_ in CREATED:
        for logical_id, properties in template.with_physical_ids(created.physical_ids).read_all(type_):
            if properties.get("MfaConfiguration") == "ON":
                raise TemplateError(
                    f"{logical_id}: MfaConfiguration ON needs a second factor, which users do not have locally; use OPTIONAL"
                )
            try:
                id_ = create_resource(aws, type_, template.get_physical_id(logical_id), properties)
            except ClientError as error:
                raise TemplateError(f"{logical_id}: {error.response['Error']['Message']}") from error
            except BotoCoreError as error:
                raise TemplateError(f"{logical_id}: {error}") from error
            created.physical_ids[logical_id] = id_
            time_to_live = properties.get("TimeToLiveSpecification", {"Enabled": False})
            if time_to_live["Enabled"]:
                created.expiring[id_] = time_to_live["AttributeName"]
    return created


def create_resource(aws: LocalAws, type_: str, name: str, properties: Properties) -> str:
    """Create a resource; return its physical id. `name` is used if the properties contain no name."""
    if type_.startswith("AWS::DynamoDB::"):
        return create_table(aws, type_, {"TableName": name, **properties})
    cognito: CognitoIdentityProviderClient = aws.client("cognito-idp")
    match type_:
        case "AWS::Cognito::UserPool":
            return str(cognito.create_user_pool(**{"PoolName": name, **properties})["UserPool"]["Id"])
        case "AWS::Cognito::UserPoolClient":
            client = cognito.create_user_pool_client(**{"ClientName": name, **properties})
            return str(client["UserPoolClient"]["ClientId"])
        case _:
            return str(cognito.create_group(**{"GroupName": name, **properties})["Group"]["GroupName"])


def create_table(aws: LocalAws, type_: str, properties: Properties) -> str:
    if type_ == "AWS::DynamoDB::GlobalTable":  # a template may set its capacity, but only for each region
        properties["BillingMode"] = "PAY_PER_REQUEST"
    time_to_live = properties.pop("TimeToLiveSpecification", None)
    dynamodb: DynamoDBClient = aws.client("dynamodb")
    dynamodb.create_table(**properties)
    if time_to_live:
        dynamodb.update_time_to_live(TableName=properties["TableName"], TimeToLiveSpecification=time_to_live)
    return str(properties["TableName"])
