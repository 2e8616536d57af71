"""Deploys the stack into a local AWS and a real image registry, and proves what was published and what was created.

The CDK CLI, bake and Docker are the user's own and unchanged: only variables of the environment lead them here.
"""

import hashlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3
from botocore.exceptions import ClientError
from ecr import blob, manifest
from processes import CheckFailed, docker, expect, expect_equal, run, say
from surroundings import NO_ENGINE, docker_registry, ecr_between, lead_to_loopback, local_aws, ministack, no_tags_left

STACK = "WebSocketCognito"
SECOND = "Second"
TO_TRY_IT = ("--context=selfSignUp=true", "--context=removalPolicy=destroy")
BESIDE = (f"--context=stackName={SECOND}", "--context=apiGatewayLogRole=false")
FUNCTIONS = {"authorizer", "websocket"}
OUTPUTS = {
    "Region",
    "UserPoolId",
    "AppClientId",
    "WebSocketEndpoint",
    "CallbackUrl",
    "ConnectionTableName",
    "AuthorizerLogGroup",
}
PASSWORD_RULES = {"minimumLength", "requireLowercase", "requireUppercase", "requireNumbers", "requireSymbols"}
KEPT = "ApiLogRole"  # by design: the log role belongs to the account, other APIs may rely on it
SINGLE_MANIFESTS = {
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
}
ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64"}  # an image's name for it: Lambda's
LISTED_TYPES = {
    "AWS::ApiGatewayV2::Api",
    "AWS::Cognito::UserPool",
    "AWS::DynamoDB::Table",
    "AWS::IAM::Role",
    "AWS::Lambda::Function",
    "AWS::Logs::LogGroup",
}


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that every `with` below ends
    began = time.monotonic()
    try:
        with (
            empty_directory() as directory,
            local_aws(ministack(directory), directory) as aws,
            docker_registry(directory) as registry,
            ecr_between(aws, registry) as ecr,
            no_tags_left(f"{registry}/", *(f"{function}:cdk-" for function in FUNCTIONS)),
        ):
            say(f"local AWS {aws}, registry {registry}, ECR between them {ecr}")
            lead_to_loopback(directory, aws=aws, ecr=ecr)
            Deployment(directory, registry).check()
    except CheckFailed as failure:
        say(f"FAILED: {failure}")
        return 1
    say(f"passed in {time.monotonic() - began:.0f} s")
    return 0


@contextmanager
def empty_directory() -> Iterator[Path]:
    with TemporaryDirectory(prefix="deploy-") as name:
        yield Path(name)


@dataclass(frozen=True)
class Deployment:
    """The user's commands, one after the other, and what must be true after each.

    Attributes:
        directory: for the cloud assembly and logs.
        registry: host and port of the one that stands for ECR's.
    """

    directory: Path
    registry: str

    def check(self) -> None:
        run(self.directory, "docker", "buildx", "bake", "--load")
        self.cdk("bootstrap")
        others = listed()

        self.cdk("deploy", "--require-approval=never", f"--outputs-file={self.directory / 'outputs.json'}")
        resources = self.created()
        expect_equal("what the services list", listed() - others, physical_ids(resources, self.template()))
        outputs = self.print_outputs()
        self.check_page_config(outputs)
        for logical_id, target in self.targets().items():
            self.check_image(target, resources[logical_id])

        # Without an engine nothing can be built or pushed, so nothing was.
        again = self.cdk("deploy", "--require-approval=never", DOCKER_HOST=NO_ENGINE)
        expect("(no changes)" in again, f"a second deployment of the same source changed something:\n{again}")
        say("   nothing built, nothing pushed, no changes, with no Docker engine in reach")
        differences = self.cdk("diff", "--fail")
        expect("There were no differences" in differences, differences)
        say("   There were no differences")

        both = listed()
        self.cdk("deploy", "--require-approval=never", *BESIDE)
        expect(stack_exists(SECOND) and both < listed(), f"{SECOND} is not beside {STACK}")
        self.cdk("destroy", "--force", *BESIDE)
        expect_equal("what is left when the second stack is gone", listed(), both)
        say(f"   {SECOND} came and went beside {STACK}")

        self.cdk("destroy", "--force")
        expect(not stack_exists(STACK), f"{STACK} still exists")
        kept = {name: resource for name, resource in self.template().items() if name.startswith(KEPT)}
        expect_equal("what is left of the stack", listed() - others, physical_ids(resources, kept))
        say(f"   {STACK} is gone; kept by design: {', '.join(sorted(kept))}")

    def cdk(self, command: str, *options: str, **environment: str) -> str:
        # --no: a CLI that `npm ci` did not install is not to be fetched now.
        npx = ("npx", "--no", "cdk", command, f"--output={self.directory / 'cdk.out'}", *TO_TRY_IT)
        return run(self.directory, *npx, *options, **environment)

    def template(self) -> dict[str, Any]:
        resources: dict[str, Any] = self.read(f"cdk.out/{STACK}.template.json")["Resources"]
        return resources

    def read(self, name: str) -> Any:
        return json.loads((self.directory / name).read_text())

    def created(self) -> dict[str, str]:
        """The physical ids, by logical id, after making sure that the template was created in full."""
        described = boto3.client("cloudformation").describe_stack_resources(StackName=STACK)["StackResources"]
        status = {resource["LogicalResourceId"]: resource["ResourceStatus"] for resource in described}
        expect_equal("resources of the stack", status, dict.fromkeys(self.template(), "CREATE_COMPLETE"))
        say(f"   {len(status)} of {len(self.template())} resources CREATE_COMPLETE")
        return {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in described}

    def print_outputs(self) -> dict[str, str]:
        outputs: dict[str, str] = self.read("outputs.json")[STACK]
        absent = {name for name in OUTPUTS if not outputs.get(name)}
        expect(not absent, f"outputs {absent} are not in {outputs}")
        for name, value in outputs.items():
            say(f"   {name} = {value}")
        return outputs

    def check_page_config(self, outputs: dict[str, str]) -> None:
        """Write the page's settings as `make page-config` does, and compare them with the stack's other outputs."""
        files = [str(self.directory / name) for name in ("outputs.json", "config.json")]
        run(self.directory, sys.executable, "-m", "infra.page_config", *files)
        config = self.read("config.json")
        expect_equal("password rules of the page", config.pop("passwordPolicy").keys(), PASSWORD_RULES)
        expected = {
            "userPoolId": outputs["UserPoolId"],
            "appClientId": outputs["AppClientId"],
            "webSocketEndpoint": outputs["WebSocketEndpoint"],
            "credential": "querystring",
            "selfSignUp": True,
            "allowedOrigins": [],
            "authorizerLogGroup": outputs["AuthorizerLogGroup"],
        }
        expect_equal("the page's settings", config, expected)
        expect(config["webSocketEndpoint"].startswith("wss://"), f"the page would not encrypt: {config}")

    def targets(self) -> dict[str, str]:
        """Bake's target of every function, by logical id."""
        functions = {name: each for name, each in self.template().items() if each["Type"] == "AWS::Lambda::Function"}
        targets = {name: function.get("Metadata", {}).get("BakeTarget") for name, function in functions.items()}
        expect_equal("bake targets", set(targets.values()), FUNCTIONS)
        return targets

    def check_image(self, target: str, function_name: str) -> None:
        """What the function runs is in the registry, is bake's image, and is one that Lambda takes."""
        function = boto3.client("lambda").get_function(FunctionName=function_name)
        repository, _, tag = function["Code"]["ImageUri"].partition("/")[2].rpartition(":")
        pushed = manifest(self.registry, repository, tag)
        expect(pushed.status == HTTPStatus.OK, f"{target}: the registry has no {repository}:{tag}")

        media_type = pushed.headers["Content-Type"]
        expect(media_type in SINGLE_MANIFESTS, f"{target}: Lambda refuses {media_type}")
        document = json.loads(pushed.body)
        digest, config = f"sha256:{hashlib.sha256(pushed.body).hexdigest()}", document["config"]["digest"]
        baked = docker("image", "inspect", "--format={{.Id}}", f"{target}:dev")
        # An image's id is its configuration's digest or, where Docker keeps images in containerd, its manifest's.
        expect(baked in (config, digest), f"{target}: bake built {baked}, pushed was {config} in manifest {digest}")
        architecture = ARCHITECTURES[json.loads(blob(self.registry, repository, config))["architecture"]]
        expect_equal(f"{target}: architecture", [architecture], function["Configuration"]["Architectures"])

        megabytes = sum(layer["size"] for layer in document["layers"]) / 1e6
        say(f"   {target}: {repository}:{tag}\n      {media_type} {digest}")
        say(f"      {target}:dev is {baked}, {architecture}, {megabytes:.0f} MB compressed")


def physical_ids(resources: dict[str, str], template: dict[str, Any]) -> set[str]:
    """Of those resources of the template whose service `listed` asks."""
    return {resources[name] for name, resource in template.items() if resource["Type"] in LISTED_TYPES}


def listed() -> set[str]:
    """What the services themselves say there is, by physical id; the types are LISTED_TYPES."""
    return {
        *(api["ApiId"] for api in boto3.client("apigatewayv2").get_apis()["Items"]),
        *(pool["Id"] for pool in boto3.client("cognito-idp").list_user_pools(MaxResults=60)["UserPools"]),
        *boto3.client("dynamodb").list_tables()["TableNames"],
        *(role["RoleName"] for role in boto3.client("iam").list_roles()["Roles"]),
        *(function["FunctionName"] for function in boto3.client("lambda").list_functions()["Functions"]),
        *(group["logGroupName"] for group in boto3.client("logs").describe_log_groups()["logGroups"]),
    }


def stack_exists(name: str) -> bool:
    try:
        boto3.client("cloudformation").describe_stacks(StackName=name)
    except ClientError as error:
        expect("does not exist" in str(error), str(error))
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
