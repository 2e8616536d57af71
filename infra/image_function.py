"""A Lambda function that is a container image."""

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
    """A function with traces and JSON logs, whose image `docker buildx bake` builds.

    A deployment builds and pushes the image only if one of its inputs has changed.
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
            raise ValueError(
                f"docker-bake.hcl builds {target} for {baked.platform}, but Lambda runs {' or '.join(ARCHITECTURES)} only; "
                "change `platforms`"
            )

        self.log_group = logs.LogGroup(self, "LogGroup", retention=log_retention, removal_policy=removal_policy)
        # Not the managed policy AWSLambdaBasicExecutionRole, which allows writing to every log group.
        role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        self.log_group.grant_write(role)
        accept(
            role, "IAM5[Resource::*]", "X-Ray has no resource types for these two actions, so a policy cannot name any."
        )
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
        # The local run reads from the template which image, and so which handler, this is.
        resource = self.function.node.default_child
        assert isinstance(resource, cdk.CfnResource)
        resource.add_metadata("BakeTarget", target)
        # The CDK adds a redundant dependency on the role: the function depends on the role's policy, which depends on the role.
        resource.add_metadata("cfn-lint", {"config": {"ignore_checks": ["W3005"]}})

    def _image(self, baked: BakeTarget) -> lambda_.DockerImageCode:
        asset = cdk.Stack.of(self).synthesizer.add_docker_image_asset(
            source_hash=baked.source_hash,
            display_name=baked.name,
            executable=baked.build_command(outdir=self.node.root.outdir),  # type: ignore[attr-defined]
        )
        repository = ecr.Repository.from_repository_name(self, "Repository", asset.repository_name)
        return lambda_.DockerImageCode.from_ecr(repository, tag_or_digest=asset.image_tag)
