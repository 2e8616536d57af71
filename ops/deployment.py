"""Find a deployment's table, user pool and `@connections`, and the credentials to call them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, cast

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.session import Session

from ops.errors import OpsError, read_code
from ops.management import Management

if TYPE_CHECKING:
    from types_boto3_cloudformation import CloudFormationClient
    from types_boto3_cognito_idp import CognitoIdentityProviderClient
    from types_boto3_dynamodb import DynamoDBClient

OUTPUTS = ("Region", "ConnectionTableName", "CallbackUrl", "UserPoolId")


class Deployment:
    """The parts of a deployed stack that operators and other servers call.

    Create it once and keep it, because it reuses its network connections.

    Args:
        region: region of the stack.
        table_name: name of the connection table.
        callback_url: URL of `@connections`.
        user_pool_id: id of the user pool; None if users are only found by `sub`.
        session: session with AWS credentials; by default those of the environment.
        endpoint_urls: URLs of `dynamodb` and `cognito-idp` that replace AWS's.
        threads: how many calls are made at the same time.
    """

    def __init__(
        self,
        *,
        region: str,
        table_name: str,
        callback_url: str,
        user_pool_id: str | None = None,
        session: Session | None = None,
        endpoint_urls: Mapping[str, str] = {},
        threads: int = 32,
    ) -> None:
        self.region = region
        self.table_name = table_name
        self.user_pool_id = user_pool_id
        self.threads = threads
        self._session = session or open_session()
        self._endpoint_urls = endpoint_urls
        self.dynamodb: DynamoDBClient = self._create_client("dynamodb")
        self.management = Management(callback_url, region, self._session, threads)

    @classmethod
    def of_stack(cls, name: str, *, region: str | None = None, profile: str | None = None, **options: Any) -> Self:
        """Return the deployment that the outputs of a stack describe.

        Raises:
            OpsError: there is no such stack, or it lacks an output.
        """
        session = open_session(profile)
        cloudformation = cast("CloudFormationClient", session.create_client("cloudformation", region_name=region))
        where = f"stack {name} in {cloudformation.meta.region_name}"
        try:
            (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
        except ClientError as error:
            if read_code(error) == "ValidationError":
                raise OpsError(f"there is no {where}: check the name, --region and --profile") from error
            raise
        outputs = {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", ())}
        if missing := [each for each in OUTPUTS if each not in outputs]:
            raise OpsError(f"{where} has no output {missing[0]}: is it a stack of this project, fully deployed?")
        region, table_name, callback_url, user_pool_id = (outputs[each] for each in OUTPUTS)
        return cls(region=region, table_name=table_name, callback_url=callback_url, user_pool_id=user_pool_id,
                   session=session, **options)  # fmt: skip

    @classmethod
    def of_local_run(cls, port: int | None = None, **options: Any) -> Self:
        """Return the running `make up` as a deployment.

        Raises:
            OpsError: no `make up` runs on this port, or its template has no table.
        """
        from local import state  # noqa: PLC0415 - a server that imports `ops` does not have it
        from local.aws.models import get_session  # noqa: PLC0415
        from local.errors import CommandError  # noqa: PLC0415

        try:
            running = state.find_running(state.PORT if port is None else port)
        except CommandError as error:
            raise OpsError(str(error)) from error
        if not running.table_name:
            raise OpsError("the template of `make up` has no table, so nobody knows who is connected")
        session = get_session()  # without the user's profile, which is for AWS
        session.set_credentials(*running.credentials)
        endpoint_urls = {
            "dynamodb": running.operator_url or running.dynamodb_url,
            "cognito-idp": running.operator_url or running.cognito_url,
        }
        return cls(region=running.region, table_name=running.table_name, callback_url=running.callback_url,
                   user_pool_id=running.user_pool_id, session=session, endpoint_urls=endpoint_urls, **options)  # fmt: skip

    @cached_property
    def cognito(self) -> CognitoIdentityProviderClient:
        client: CognitoIdentityProviderClient = self._create_client("cognito-idp")
        return client

    def close(self) -> None:
        """Close the network connections."""
        self.management.close()
        self.dynamodb.close()
        if "cognito" in vars(self):  # the client is created when it is first used
            self.cognito.close()

    def _create_client(self, service: str) -> Any:
        url = self._endpoint_urls.get(service)
        config = Config(max_pool_connections=self.threads, retries={"mode": "standard", "total_max_attempts": 3})
        if url:  # on this machine, so it is not called through a proxy
            config = config.merge(Config(proxies={}))
        return self._session.create_client(service, region_name=self.region, endpoint_url=url, config=config)


def open_session(profile: str | None = None) -> Session:
    """Return a session with the credentials and the region of the environment or the profile."""
    session = botocore.session.Session(profile=profile)
    if region := os.environ.get("AWS_REGION"):  # all other SDKs read it, but botocore reads AWS_DEFAULT_REGION only
        session.set_config_variable("region", region)
    return session
