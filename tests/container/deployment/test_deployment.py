"""Bootstrap, deploy, compare and destroy the stack with the CDK CLI, in a local AWS and a real registry.

The CDK CLI, bake and Docker are unchanged; environment variables direct them to this machine. The tests share
one deployment. The last one destroys it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.container.deployment.cli_environment import (
    LISTED_TYPES,
    NO_ENGINE,
    CliEnvironment,
    build_variables,
    remove_new_tags,
    run_docker_registry,
    run_local_aws,
)
from tests.container.deployment.ecr import Ecr, get_blob, get_manifest
from tests.fixtures import ROOT
from tests.fixtures.engine import docker, skip_or_fail

STACK = "WebSocketCognito"
SECOND = "Second"
CDK = str(ROOT / "node_modules" / ".bin" / "cdk")
TRIAL_CONTEXT = ("--context=selfSignUp=true", "--context=removalPolicy=destroy")
SECOND_STACK_CONTEXT = (*TRIAL_CONTEXT, f"--context=stackName={SECOND}", "--context=apiGatewayLogRole=false")
FUNCTIONS = ["authorizer", "websocket"]
RETAINED = "ApiLogRole"  # the log role belongs to the account, and other APIs may need it
ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64"}  # Lambda's name by the image's name


@dataclass
class Deployment:
    """The deployed stack.

    Attributes:
        assembly: the folder of the stack's cloud assembly.
        before: the resources that the services listed before the deployment.
    """

    environment: CliEnvironment
    assembly: Path
    before: set[str]

    def cdk(self, *arguments: str, **changes: str) -> str:
        return self.environment.run(CDK, *arguments, **changes)

    def deploy(self, *options: str, **changes: str) -> str:
        """Deploy without the validation at synthesis, which the bootstrapping has already done."""
        return self.cdk("deploy", "--require-approval=never", *options, CDK_VALIDATION="false", **changes)

    def read_template(self) -> dict[str, Any]:
        resources: dict[str, Any] = json.loads((self.assembly / f"{STACK}.template.json").read_text())["Resources"]
        return resources

    def describe(self) -> dict[str, Any]:
        """Return CloudFormation's description of each resource, by logical id."""
        described = self.environment.client("cloudformation").describe_stack_resources(StackName=STACK)
        return {resource["LogicalResourceId"]: resource for resource in described["StackResources"]}

    def read_physical_ids(self) -> dict[str, str]:
        """Return the physical ids of the resources of LISTED_TYPES, by logical id."""
        described = self.describe().items()
        return {name: each["PhysicalResourceId"] for name, each in described if each["ResourceType"] in LISTED_TYPES}


@pytest.fixture(scope="module")
def environment(
    images: None, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CliEnvironment]:
    if shutil.which("docker-registry") is None:
        skip_or_fail(pytestconfig, "there is no docker-registry: install one, e.g. Debian's package of that name")
    folder = tmp_path_factory.mktemp("deployment")
    with ExitStack() as stack:
        aws_url = stack.enter_context(run_local_aws(folder))
        registry = stack.enter_context(run_docker_registry(folder))
        ecr = stack.enter_context(Ecr(aws_url=aws_url, registry=registry))
        stack.enter_context(remove_new_tags(f"{registry}/", *(f"{function}:cdk-" for function in FUNCTIONS)))
        variables = build_variables(folder, aws_url=aws_url, ecr_url=ecr.url)
        yield CliEnvironment(folder, aws_url, registry, variables)


@pytest.fixture(scope="module")
def deployment(environment: CliEnvironment) -> Deployment:
    """Bootstrap and deploy as the README says, but synthesize only once, because that takes most of the time."""
    assembly = environment.folder / "cdk.out"
    environment.run(CDK, "bootstrap", f"--output={assembly}", *TRIAL_CONTEXT)
    deployment = Deployment(environment, assembly, environment.list_resources())
    deployment.deploy(f"--app={assembly}", f"--outputs-file={environment.folder / 'outputs.json'}")
    return deployment


@pytest.fixture
def outputs(deployment: Deployment) -> Mapping[str, str]:
    outputs: dict[str, str] = json.loads((deployment.environment.folder / "outputs.json").read_text())[STACK]
    return outputs


def test_all_resources_of_the_template_are_created(deployment: Deployment) -> None:
    status = {name: resource["ResourceStatus"] for name, resource in deployment.describe().items()}

    assert status == dict.fromkeys(deployment.read_template(), "CREATE_COMPLETE")
    assert deployment.environment.list_resources() - deployment.before == set(deployment.read_physical_ids().values())


def test_outputs_file_has_the_values_that_clients_and_operators_need(outputs: Mapping[str, str]) -> None:
    needed = {
        "Region",
        "UserPoolId",
        "AppClientId",
        "WebSocketEndpoint",
        "CallbackUrl",
        "ConnectionTableName",
        "AuthorizerLogGroup",
    }

    assert {name for name in needed if not outputs.get(name)} == set()


def test_page_config_has_the_settings_of_the_stack(deployment: Deployment, outputs: Mapping[str, str]) -> None:
    folder = deployment.environment.folder
    files = [str(folder / name) for name in ("outputs.json", "config.json")]

    deployment.environment.run(sys.executable, "-m", "infra.page_config", *files)

    config = json.loads((folder / "config.json").read_text())
    policy = config.pop("passwordPolicy")
    assert config == {
        "userPoolId": outputs["UserPoolId"],
        "appClientId": outputs["AppClientId"],
        "webSocketEndpoint": outputs["WebSocketEndpoint"],
        "credential": "querystring",
        "selfSignUp": True,
        "allowedOrigins": [],
        "authorizerLogGroup": outputs["AuthorizerLogGroup"],
    }
    assert config["webSocketEndpoint"].startswith("wss://")
    assert policy.keys() == {
        "minimumLength",
        "requireLowercase",
        "requireUppercase",
        "requireNumbers",
        "requireSymbols",
    }


@pytest.mark.parametrize("target", FUNCTIONS)
def test_function_runs_the_image_that_bake_builds(deployment: Deployment, target: str) -> None:
    """The registry has the image, with a manifest that Lambda accepts."""
    functions = {
        resource["Metadata"]["BakeTarget"]: name
        for name, resource in deployment.read_template().items()
        if resource["Type"] == "AWS::Lambda::Function"
    }
    assert sorted(functions) == FUNCTIONS
    name = deployment.read_physical_ids()[functions[target]]
    function = deployment.environment.client("lambda").get_function(FunctionName=name)
    repository, _, tag = function["Code"]["ImageUri"].partition("/")[2].rpartition(":")

    pushed = get_manifest(deployment.environment.registry, repository, tag)

    assert pushed.status_code == 200, f"the registry has no {repository}:{tag}"
    assert pushed.headers["Content-Type"] in {
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
    }
    digest, config = f"sha256:{hashlib.sha256(pushed.content).hexdigest()}", pushed.json()["config"]["digest"]
    # An image's id is its configuration's digest or, where Docker keeps images in containerd, its manifest's.
    assert docker("image", "inspect", "--format={{.Id}}", f"{target}:dev").stdout.strip() in {config, digest}
    architecture = get_blob(deployment.environment.registry, repository, config)["architecture"]
    assert function["Configuration"]["Architectures"] == [ARCHITECTURES[architecture]]


def test_second_deployment_changes_nothing_and_does_not_need_docker(deployment: Deployment) -> None:
    """Deploy without an engine, so that nothing can be built or pushed."""
    assembly = deployment.environment.folder / "again"

    assert "(no changes)" in deployment.deploy(f"--output={assembly}", *TRIAL_CONTEXT, DOCKER_HOST=NO_ENGINE)
    assert "There were no differences" in deployment.cdk("diff", "--fail", f"--app={assembly}")


def test_second_stack_is_deployed_and_destroyed_beside_the_first(deployment: Deployment) -> None:
    first, assembly = deployment.environment.list_resources(), deployment.environment.folder / "second"

    deployment.deploy(f"--output={assembly}", "--method=direct", *SECOND_STACK_CONTEXT)
    assert deployment.environment.stack_exists(SECOND)
    assert first < deployment.environment.list_resources()

    deployment.cdk("destroy", "--force", f"--app={assembly}")
    assert not deployment.environment.stack_exists(SECOND)
    assert deployment.environment.list_resources() == first


def test_destroyed_stack_leaves_only_the_log_role(deployment: Deployment) -> None:
    created = deployment.read_physical_ids()

    deployment.cdk("destroy", "--force", f"--app={deployment.assembly}")

    assert not deployment.environment.stack_exists(STACK)
    kept = {id_ for name, id_ in created.items() if name.startswith(RETAINED)}
    assert kept
    assert deployment.environment.list_resources() - deployment.before == kept
