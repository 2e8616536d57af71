"""Run a local AWS and an image registry, and direct all tools to them by environment variables."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import requests
from botocore.exceptions import ClientError

from local.paths import VENVS
from local.reaper import Reaper
from tests.fixtures import ROOT
from tests.fixtures.engine import docker
from tests.fixtures.network import find_free_port

ACCOUNT = "111122223333"  # from AWS's documentation; used as the access key, it also selects the local AWS's account
REGION = "eu-central-1"  # not the default of any tool, so that a hard-coded region makes a test fail
SESSION = boto3.Session(ACCOUNT, "none", region_name=REGION)
NO_ENGINE = "unix:///nowhere/docker.sock"
START_SECONDS = 30
COMMAND_SECONDS = 300
LOG_LINES = 40

LISTED_TYPES = {
    "AWS::ApiGatewayV2::Api",
    "AWS::Cognito::UserPool",
    "AWS::DynamoDB::Table",
    "AWS::IAM::Role",
    "AWS::Lambda::Function",
    "AWS::Logs::LogGroup",
}


@dataclass(frozen=True)
class CliEnvironment:
    """A local AWS, a registry, and the variables with which command-line tools use them.

    Attributes:
        folder: has the logs, and the tools' caches and logins.
        registry: host and port of the registry that replaces ECR's.
        variables: the environment variables of all commands.
    """

    folder: Path
    aws_url: str
    registry: str
    variables: Mapping[str, str]

    def client(self, service: str) -> Any:
        return SESSION.client(service, endpoint_url=self.aws_url)

    def list_resources(self) -> set[str]:
        """Return the physical ids of all resources of LISTED_TYPES, as their services list them."""
        client = self.client
        return {
            *(api["ApiId"] for api in client("apigatewayv2").get_apis()["Items"]),
            *(pool["Id"] for pool in client("cognito-idp").list_user_pools(MaxResults=60)["UserPools"]),
            *client("dynamodb").list_tables()["TableNames"],
            *(role["RoleName"] for role in client("iam").list_roles()["Roles"]),
            *(function["FunctionName"] for function in client("lambda").list_functions()["Functions"]),
            *(group["logGroupName"] for group in client("logs").describe_log_groups()["logGroups"]),
        }

    def stack_exists(self, name: str) -> bool:
        try:
            self.client("cloudformation").describe_stacks(StackName=name)
        except ClientError as error:
            if "does not exist" in str(error):
                return False
            raise
        return True

    def run(self, *command: str, **changes: str) -> str:
        """Run a command; return its output. If it fails, raise AssertionError with the end of both logs."""
        log = self.folder / "command.log"
        with start(command, log, {**self.variables, **changes}) as process:
            status = process.wait(COMMAND_SECONDS)
        logs = f"{read_tail(log)}\n--- the local AWS:\n{read_tail(self.folder / 'aws.log')}"
        assert status == 0, f"{' '.join(command)} exited with {status}\n{logs}"
        return log.read_text()


def build_variables(folder: Path, *, aws_url: str, ecr_url: str) -> dict[str, str]:
    """Return variables that direct all tools to the local AWS. Their credentials are not valid for a real account."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CDK_"))}
    return kept | {
        "AWS_ACCESS_KEY_ID": ACCOUNT,
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_ENDPOINT_URL": aws_url,
        "AWS_ENDPOINT_URL_ECR": ecr_url,
        "CDK_HOME": str(folder / "cdk"),  # the CLI caches an access key's account there
        "DOCKER_CONFIG": str(folder / "docker"),  # Docker keeps the login there
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "TAG": "dev",
    }


@contextmanager
def run_local_aws(folder: Path) -> Iterator[str]:
    """Run ministack with all services that a deployment calls; yield its URL."""
    python = VENVS / "aws" / "bin" / "python"
    assert python.exists(), f"{python} is missing, run `make setup`"
    port = find_free_port()
    variables = {
        **os.environ,
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "DOCKER_HOST": NO_ENGINE,  # it must not start or stop containers
        "LAMBDA_EXECUTOR": "local",
        "IOT_MTLS_ENABLED": "0",  # this and SFTP would listen on every interface
        "SFTP_ENABLED": "0",
        "LOG_LEVEL": "WARNING",
        "TMPDIR": str(folder),
    }
    script = str(Path(__file__).with_name("ministack_with_our_types.py"))
    with start((str(python), script), folder / "aws.log", variables) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for_answer(process, f"{url}/_ministack/health", folder / "aws.log")
        yield url


@contextmanager
def run_docker_registry(folder: Path) -> Iterator[str]:
    """Run Docker's registry on an empty folder; yield its host and port."""
    address = f"127.0.0.1:{find_free_port()}"
    configuration = folder / "registry.json"  # YAML includes JSON
    storage = {"filesystem": {"rootdirectory": str(folder / "registry")}}
    configuration.write_text(json.dumps({"version": "0.1", "storage": storage, "http": {"addr": address}}))
    log = folder / "registry.log"
    with start(("docker-registry", "serve", str(configuration)), log, os.environ) as process:
        wait_for_answer(process, f"http://{address}/v2/", log)
        yield address


@contextmanager
def start(command: tuple[str, ...], log: Path, variables: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command. Kill it and its descendants when the block or this process ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    reaper = Reaper()
    reaper.watch(process.pid)
    try:
        yield process
    finally:
        if process.poll() is not None:
            reaper.release(process.pid)
        asyncio.run(reaper.stop())
        process.wait()


def wait_for_answer(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if requests.get(url, timeout=START_SECONDS).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise AssertionError(f"{url} gave no answer\n{read_tail(log)}")


def read_tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])


@contextmanager
def remove_new_tags(*prefixes: str) -> Iterator[None]:
    """Remove the image tags with these prefixes that the block created."""
    before = list_tags()
    try:
        yield
    finally:
        for tag in list_tags() - before:
            if tag.startswith(prefixes):
                docker("image", "rm", tag)


def list_tags() -> set[str]:
    return set(docker("images", "--format={{.Repository}}:{{.Tag}}").stdout.split())
