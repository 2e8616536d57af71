"""One definition of a function that is a container image."""

from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.bake import BakeTarget
from infra.findings import accept

ARCHITECTURES = {"linux/amd64": lambda_.Architecture.X86_64, "linux/arm64": lambda_.Architecture.ARM_64}


class ImageFunction(Construct):
    """A traced function with JSON logs whose image is what `docker buildx bake` builds.

    The image is built and pushed at deployment, and only when an input of it has changed.
    """

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        target: str,
        log_retention: logs.RetentionDays,
        removal_policy: cdk.RemovalPolicy,
        timeout: cdk.Duration | None = None,
        images: Path | None = None,
    ) -> None:
        super().__init__(scope, id_)
        baked = BakeTarget.read(target, images)
        if baked.platform not in ARCHITECTURES:
            raise ValueError(f"Lambda runs {' or '.join(ARCHITECTURES)}; bake builds {target} for {baked.platform}")

        self.log_group = logs.LogGroup(self, "LogGroup", retention=log_retention, removal_policy=removal_policy)
        # A role of its own: AWSLambdaBasicExecutionRole could write to every log group.
        role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        self.log_group.grant_write(role)
        accept(role, "IAM5[Resource::*]", "X-Ray has no resources that a policy could name for its two actions.")
        self.function = lambda_.DockerImageFunction(
            self,
            "Function",
            code=self._image(baked),
            architecture=ARCHITECTURES[baked.platform],
            role=role,
            memory_size=512,
            timeout=timeout or cdk.Duration.seconds(10),
            tracing=lambda_.Tracing.ACTIVE,
            log_group=self.log_group,
            logging_format=lambda_.LoggingFormat.JSON,
            application_log_level_v2=lambda_.ApplicationLogLevel.INFO,
            system_log_level_v2=lambda_.SystemLogLevel.WARN,
        )
        # Tells tools that run the template on a desk which image, and so which handler, this is.
        resource = self.function.node.default_child
        assert isinstance(resource, cdk.CfnResource)
        resource.add_metadata("BakeTarget", target)
        # The CDK lets a function wait for its role, and for the role's policy, which waits for the role anyway.
        resource.add_metadata("cfn-lint", {"config": {"ignore_checks": ["W3005"]}})

    def _image(self, baked: BakeTarget) -> lambda_.DockerImageCode:
        asset = cdk.Stack.of(self).synthesizer.add_docker_image_asset(
            source_hash=baked.source_hash,
            display_name=baked.name,
            executable=baked.command(outdir=self.node.root.outdir),  # type: ignore[attr-defined]
        )
        repository = ecr.Repository.from_repository_name(self, "Repository", asset.repository_name)
        return lambda_.DockerImageCode.from_ecr(repository, tag_or_digest=asset.image_tag)
