"""The resource types that are run, their properties, and the types of the properties' values."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from botocore.model import Shape, ShapeResolver, StructureShape

from local.aws.models import load_service_model
from local.cloudformation.values import coerce
from local.errors import TemplateError

POLICY_MODEL: dict[str, Any] = {
    "Text": {"type": "string"},
    "Texts": {"type": "list", "member": {"shape": "Text"}},
    "Document": {"type": "structure", "members": {}, "document": True},
    "Policies": {"type": "list", "member": {"shape": "Policy"}},
    "Policy": {
        "type": "structure",
        "required": ["PolicyDocument"],
        "members": {"PolicyName": {"shape": "Text"}, "PolicyDocument": {"shape": "Document"}},
    },
    "Properties": {
        "type": "structure",
        "members": {
            "ManagedPolicyArns": {"shape": "Texts"},
            "ManagedPolicyName": {"shape": "Text"},
            "Path": {"shape": "Text"},
            "PermissionsBoundary": {"shape": "Text"},
            "Policies": {"shape": "Policies"},
            "PolicyDocument": {"shape": "Document"},
            "RoleName": {"shape": "Text"},
            "Roles": {"shape": "Texts"},
        },
    },
}
POLICY_SHAPES = ShapeResolver(POLICY_MODEL)


@cache
def load_shapes(source: str) -> dict[str, Shape]:
    """Return types by property name, from the inputs of botocore's operations. `source` is e.g. `lambda CreateAlias`."""
    service, *operations = source.split()
    inputs: list[Shape | None]
    if service == "iam":
        inputs = [POLICY_SHAPES.get_shape_by_name("Properties")]
    else:
        model = load_service_model(service)
        inputs = [model.operation_model(operation).input_shape for operation in operations]
    structures = (shape for shape in inputs if isinstance(shape, StructureShape))
    return {name: shape for structure in structures for name, shape in structure.members.items()}


@dataclass(frozen=True)
class ResourceType:
    """How resources of a type are read. Lists of names are separated by spaces.

    Attributes:
        source: the source of the properties' types, see `load_shapes`.
        read: the properties that are read; empty for all properties of the source.
        required: the properties that a resource must have.
        ignored: properties without an effect on the local run, at any depth.
        harmless: values with which a property has no effect; other values are refused unless the property is read.
        renamed: properties whose names differ from those in the source.
    """

    source: str
    read: str = ""
    required: str = ""
    ignored: str = ""
    harmless: dict[str, Any] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)

    def coerce(self, name: str, value: Any, where: str) -> dict[str, Any]:
        """Return a property, converted to its type, under its name in the source; an empty dict if it has no effect.

        Raises:
            TemplateError: the value has the wrong type, or the property cannot be run locally.
        """
        known, renamed = load_shapes(self.source), self.renamed.get(name, name)
        if name in self.harmless and str(value).lower() == str(self.harmless[name]).lower():  # "false" counts as false
            return {}
        if renamed in (self.read.split() or known.keys() - self.harmless.keys()):
            return {renamed: coerce(known[renamed], value, f"{where}: {name}", self.ignored.split())}
        rule = "cannot be run locally; leave it out of the local run"
        if renamed not in known:
            rule = "is not known here; leave it out of the local run, or correct its name"
        raise TemplateError(f"{where}: {name} {rule}")


# The resource types that are run.
RUN = {
    "AWS::ApiGatewayV2::Api": ResourceType(
        "apigatewayv2 CreateApi",
        read="ProtocolType RouteSelectionExpression",
        required="ProtocolType",
        ignored="ApiKeySelectionExpression Description DisableSchemaValidation FailOnWarnings IpAddressType Name Tags Version",
        harmless={"DisableExecuteApiEndpoint": False},
    ),
    "AWS::ApiGatewayV2::Authorizer": ResourceType(
        "apigatewayv2 CreateAuthorizer",
        read="ApiId AuthorizerType AuthorizerUri IdentitySource",
        required="AuthorizerType AuthorizerUri",
        ignored="AuthorizerResultTtlInSeconds IdentityValidationExpression Name",  # of other kinds of APIs
    ),
    "AWS::ApiGatewayV2::Integration": ResourceType(
        "apigatewayv2 CreateIntegration",
        read="ApiId IntegrationType IntegrationUri TimeoutInMillis",
        required="IntegrationType",
        ignored="Description IntegrationMethod PassthroughBehavior PayloadFormatVersion",
        harmless={"ConnectionType": "INTERNET"},
    ),
    "AWS::ApiGatewayV2::Route": ResourceType(
        "apigatewayv2 CreateRoute",
        read="ApiId AuthorizationType AuthorizerId RouteKey RouteResponseSelectionExpression Target",
        required="RouteKey",
        ignored="OperationName",
        harmless={"ApiKeyRequired": False, "AuthorizationScopes": [], "RequestModels": {}, "RequestParameters": {}},
    ),
    "AWS::ApiGatewayV2::RouteResponse": ResourceType(
        "apigatewayv2 CreateRouteResponse",
        read="ApiId RouteId RouteResponseKey",
        required="RouteId RouteResponseKey",
        harmless={"ResponseModels": {}, "ResponseParameters": {}},
    ),
    "AWS::ApiGatewayV2::Stage": ResourceType(
        "apigatewayv2 CreateStage",
        read="ApiId AutoDeploy DefaultRouteSettings DeploymentId RouteSettings StageName StageVariables",
        required="StageName",
        ignored="AccessLogSettings AccessPolicyId Description Tags",
    ),
    "AWS::Cognito::UserPool": ResourceType(
        "cognito-idp CreateUserPool",
        ignored=(
            "EmailAuthenticationMessage EmailAuthenticationSubject EnabledMfas UserPoolTags WebAuthnFactorConfiguration"
            " WebAuthnRelyingPartyID WebAuthnUserVerification"
        ),
        harmless={"LambdaConfig": {}},
        renamed={"UserPoolName": "PoolName"},
    ),
    "AWS::Cognito::UserPoolClient": ResourceType(
        "cognito-idp CreateUserPoolClient", required="UserPoolId", ignored="AnalyticsConfiguration"
    ),
    "AWS::Cognito::UserPoolGroup": ResourceType("cognito-idp CreateGroup", required="UserPoolId", ignored="RoleArn"),
    "AWS::DynamoDB::Table": ResourceType(
        "dynamodb CreateTable UpdateTimeToLive",
        harmless={"TimeToLiveSpecification": {"Enabled": False}},
        read=(
            "AttributeDefinitions BillingMode DeletionProtectionEnabled GlobalSecondaryIndexes KeySchema"
            " LocalSecondaryIndexes ProvisionedThroughput TableName TimeToLiveSpecification"
        ),
        required="KeySchema",
        ignored=(
            "ContributorInsightsSpecification KinesisStreamSpecification OnDemandThroughput"
            " PointInTimeRecoverySpecification SSESpecification StreamSpecification TableClass Tags WarmThroughput"
        ),
    ),
    "AWS::DynamoDB::GlobalTable": ResourceType(
        "dynamodb CreateTable UpdateTimeToLive",
        harmless={"TimeToLiveSpecification": {"Enabled": False}},
        read="AttributeDefinitions GlobalSecondaryIndexes KeySchema LocalSecondaryIndexes TableName TimeToLiveSpecification",
        required="KeySchema",
        ignored=(
            "BillingMode GlobalTableSettingsReplicationMode GlobalTableWitnesses MultiRegionConsistency Replicas"
            " ReadOnDemandThroughputSettings ReadProvisionedThroughputSettings SSESpecification StreamSpecification"
            " WarmThroughput WriteOnDemandThroughputSettings WriteProvisionedThroughputSettings"
        ),
    ),
    "AWS::IAM::ManagedPolicy": ResourceType(
        "iam",
        read="ManagedPolicyName Path PolicyDocument Roles",
        required="PolicyDocument",
        ignored="Description Groups Users",
    ),
    "AWS::IAM::Policy": ResourceType(
        "iam", read="PolicyDocument Roles", required="PolicyDocument", ignored="Groups PolicyName Users"
    ),
    "AWS::IAM::Role": ResourceType(
        "iam",
        read="ManagedPolicyArns Path Policies RoleName",
        ignored="AssumeRolePolicyDocument Description MaxSessionDuration Tags",
    ),
    "AWS::IAM::RolePolicy": ResourceType(
        "iam", read="PolicyDocument RoleName", required="RoleName", ignored="PolicyName"
    ),
    "AWS::Lambda::Alias": ResourceType(
        "lambda CreateAlias",
        read="FunctionName FunctionVersion Name",
        required="FunctionName FunctionVersion Name",
        ignored="Description ProvisionedConcurrencyConfig",
        harmless={"RoutingConfig": {}},
    ),
    "AWS::Lambda::Function": ResourceType(
        "lambda CreateFunction",
        read="Environment FunctionName Handler ImageConfig LoggingConfig MemorySize Role Timeout",
        required="Role",
        ignored=(
            "Architectures Code CodeSigningConfigArn DeadLetterConfig Description EphemeralStorage KmsKeyArn PackageType"
            " RecursiveLoop ReservedConcurrentExecutions Runtime RuntimeManagementConfig SnapStart Tags TracingConfig"
            " VpcConfig"
        ),
        harmless={"FileSystemConfigs": [], "Layers": []},
    ),
    "AWS::Lambda::Permission": ResourceType(
        "lambda AddPermission",
        read="Action FunctionName Principal SourceAccount SourceArn",
        required="Action FunctionName Principal",
    ),
    "AWS::Lambda::Version": ResourceType(
        "lambda PublishVersion",
        read="FunctionName",
        required="FunctionName",
        ignored="CodeSha256 Description FunctionScalingConfig ProvisionedConcurrencyConfig RuntimePolicy",
    ),
}
# Created in the local AWS. User pools come first, because clients and groups refer to them.
CREATED = (
    "AWS::Cognito::UserPool",
    "AWS::Cognito::UserPoolClient",
    "AWS::Cognito::UserPoolGroup",
    "AWS::DynamoDB::Table",
    "AWS::DynamoDB::GlobalTable",
)
# While the API is used, these types make and receive no calls, even if they refer to a function. `*` ends a prefix.
WITHOUT_EFFECT = (
    "AWS::ApiGateway::Account", "AWS::ApiGatewayV2::ApiMapping", "AWS::ApiGatewayV2::Deployment",
    "AWS::ApiGatewayV2::DomainName", "AWS::ApiGatewayV2::IntegrationResponse", "AWS::ApiGatewayV2::Model",
    "AWS::ApiGatewayV2::VpcLink", "AWS::ApplicationAutoScaling::*", "AWS::ApplicationSignals::*",
    "AWS::CDK::Metadata", "AWS::CloudFormation::WaitCondition*", "AWS::CloudTrail::*", "AWS::CloudWatch::*",
    "AWS::CodeDeploy::*",
    "AWS::Cognito::IdentityPool*", "AWS::Cognito::LogDeliveryConfiguration", "AWS::Cognito::ManagedLoginBranding",
    "AWS::Cognito::UserPoolDomain", "AWS::Cognito::UserPoolIdentityProvider", "AWS::Cognito::UserPoolResourceServer",
    "AWS::Cognito::UserPoolRiskConfigurationAttachment", "AWS::Cognito::UserPoolUICustomizationAttachment",
    "AWS::EC2::*", "AWS::IAM::*", "AWS::Lambda::CodeSigningConfig", "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::LayerVersion*", "AWS::Logs::LogGroup", "AWS::Logs::LogStream", "AWS::Logs::MetricFilter",
    "AWS::Logs::QueryDefinition", "AWS::Logs::ResourcePolicy", "AWS::ResourceGroups::*", "AWS::SSM::Document",
    "AWS::SSM::Parameter", "AWS::SecretsManager::*",
    "Custom::CDKBucketDeployment", "Custom::DescribeCognitoUserPoolClient", "Custom::ECRAutoDeleteImages",
    "Custom::LogRetention", "Custom::S3AutoDeleteObjects", "Custom::VpcRestrictDefaultSG",
)  # fmt: skip
# All types of these services that can be left out are listed above. Any other type is refused.
COMPLETE_SERVICES = (
    "AWS::ApiGatewayV2", "AWS::CloudFormation", "AWS::Cognito", "AWS::DynamoDB", "AWS::Lambda", "AWS::Serverless",
)  # fmt: skip


def is_without_effect(type_: str) -> bool:
    return any(type_ == each or (each.endswith("*") and type_.startswith(each[:-1])) for each in WITHOUT_EFFECT)
