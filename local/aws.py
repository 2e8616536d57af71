"""A local AWS for what functions call: Cognito and DynamoDB by ministack, or a DynamoDB of the user's choice."""

from __future__ import annotations

import asyncio
import os
import tempfile
from asyncio.subprocess import STDOUT, Process
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from pycognito.aws_srp import AWSSRP

from local.iam import ADMINISTRATOR
from local.launch import ROOT, VENVS, LaunchError
from local.ports import find_port
from local.resources import REGION, TemplateError
from local.template import Template

CREDENTIALS = {"aws_access_key_id": ADMINISTRATOR, "aws_secret_access_key": ADMINISTRATOR}
START_SECONDS = 30.0
CREATED = ("AWS::Cognito::UserPool", "AWS::Cognito::UserPoolClient", "AWS::DynamoDB::Table")


class LocalAws:
    """ministack as a process of its own, on the loopback interface only, forgetting everything at its end.

    Attributes:
        expiring: the tables with a time to live, and its attribute.
    """

    def __init__(self, *, log: Path, port: int = 0, dynamodb_url: str | None = None) -> None:
        self.log = log
        self.port = find_port(port, "--aws-port")
        self.url = f"http://127.0.0.1:{self.port}"
        self.dynamodb_url = dynamodb_url or self.url
        self._state = tempfile.TemporaryDirectory(prefix="local-aws-")  # the user pool's private key lies there
        self.expiring: dict[str, str] = {}
        self._process: Process | None = None

    @property
    def started(self) -> bool:
        return self._process is not None

    @property
    def urls(self) -> dict[str, str]:
        """The service's URLs; none before it is started."""
        return {"cognito-idp": self.url, "dynamodb": self.dynamodb_url} if self.started else {}

    async def start(self) -> None:
        """Returns when it answers; LaunchError if it does not."""
        python = VENVS / "aws" / "bin" / "python"
        if not python.exists():
            raise LaunchError(f"{VENVS.relative_to(ROOT)}/aws is missing: run `make setup`")
        environment = {
            "PATH": os.defpath,
            "HOME": self._state.name,
            "AUTH": "true",  # passwords and credentials are checked only then
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "IOT_MTLS_ENABLED": "0",  # it would listen on every interface
            "SFTP_ENABLED": "0",
            "SERVICES": "cognito-idp,dynamodb",
            "STATE_DIR": self._state.name,
        }
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                python, "-m", "ministack", cwd=self._state.name, env=environment, stdout=log, stderr=STDOUT,
                start_new_session=True,
            )  # fmt: skip
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while not await answers(self.port):
            if self._process.returncode is not None:
                raise LaunchError(f"the local AWS ended with status {self._process.returncode}, see {self.log}")
            if asyncio.get_running_loop().time() > deadline:
                raise LaunchError(f"the local AWS does not answer after {START_SECONDS:.0f} s, see {self.log}")
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        if self._process:
            if self._process.returncode is None:
                self._process.terminate()
            await self._process.wait()
        self._state.cleanup()

    def client(self, service: str) -> Any:
        return client(service, self.dynamodb_url if service == "dynamodb" else self.url)

    def create(self, template: Template) -> None:
        """Creates the template's user pools, app clients and tables, and tells it their ids.

        Raises:
            TemplateError: a property is refused; the message names the resource.
        """
        create = (self._create_user_pool, self._create_app_client, self._create_table)
        for type_, make in zip(CREATED, create, strict=True):
            for logical_id, properties in template.of_type(type_):
                try:
                    template.physical_ids[logical_id] = make(template.physical_ids[logical_id], properties)
                except (BotoCoreError, ClientError) as error:
                    raise TemplateError(f"{logical_id}: {error}") from error

    def _create_user_pool(self, name: str, properties: dict[str, Any]) -> str:
        pool = self.client("cognito-idp").create_user_pool(
            **{"PoolName": name, **renamed(properties, "UserPoolName", "PoolName")}
        )
        return str(pool["UserPool"]["Id"])

    def _create_app_client(self, name: str, properties: dict[str, Any]) -> str:
        client = self.client("cognito-idp").create_user_pool_client(**{"ClientName": name, **properties})
        return str(client["UserPoolClient"]["ClientId"])

    def _create_table(self, name: str, properties: dict[str, Any]) -> str:
        time_to_live = properties.pop("TimeToLiveSpecification", None)
        dynamodb = self.client("dynamodb")
        table = dynamodb.create_table(**{"TableName": name, **properties})["TableDescription"]["TableName"]
        if time_to_live:
            dynamodb.update_time_to_live(TableName=table, TimeToLiveSpecification=time_to_live)
            if time_to_live["Enabled"]:
                self.expiring[table] = time_to_live["AttributeName"]
        return str(table)


class Users:
    """Users of a local user pool, made by its administrator and signed in as a browser does, by SRP."""

    def __init__(self, cognito_url: str, user_pool_id: str, app_client_id: str) -> None:
        self.cognito = client("cognito-idp", cognito_url)
        self.user_pool_id = user_pool_id
        self.app_client_id = app_client_id

    def add(self, email: str, password: str) -> None:
        attributes = [{"Name": "email", "Value": email}, {"Name": "email_verified", "Value": "true"}]
        self.cognito.admin_create_user(
            UserPoolId=self.user_pool_id, Username=email, UserAttributes=attributes, MessageAction="SUPPRESS"
        )
        self.cognito.admin_set_user_password(
            UserPoolId=self.user_pool_id, Username=email, Password=password, Permanent=True
        )

    def id_token(self, email: str, password: str, app_client_id: str | None = None) -> str:
        """The ID token of a sign-in by the Secure Remote Password protocol."""
        sign_in = AWSSRP(
            username=email,
            password=password,
            pool_id=self.user_pool_id,
            client_id=app_client_id or self.app_client_id,
            client=self.cognito,
        )
        return str(sign_in.authenticate_user()["AuthenticationResult"]["IdToken"])


def client(service: str, url: str) -> Any:
    """A boto3 client of a local endpoint."""
    return boto3.client(service, endpoint_url=url, region_name=REGION, **CREDENTIALS)


def renamed(properties: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if name == old else name: value for name, value in properties.items()}


async def answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
