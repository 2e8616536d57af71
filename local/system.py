"""Puts the parts together: template, local AWS, functions, gateway."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from local import launch
from local.aws import CREDENTIALS, LocalAws, Users, bindable
from local.gateway import Invocation
from local.lambda_runtime import FunctionRunner, Launch
from local.progress import Progress
from local.server import GatewayServer
from local.template import Api, Template, synthesize

STATE = launch.ROOT / ".local"
LOGS = STATE / "logs"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How to run the system.

    Attributes:
        port: of the gateway, 0 for any that is free.
        aws_port: of the local Cognito and DynamoDB, likewise.
        functions: in the built images, as plain processes, or images where there is an engine to build them.
        environments: execution environments of each function.
        dynamodb_url: a DynamoDB to use instead of the built-in one, e.g. DynamoDB Local.
    """

    port: int = 0
    aws_port: int = 0
    functions: Literal["auto", "process", "image"] = "auto"
    environments: int = 2
    dynamodb_url: str | None = None


@dataclass(frozen=True)
class System:
    """The running system, and where to reach it."""

    api: Api
    aws: LocalAws
    port: int
    user_pool_id: str
    app_client_id: str
    table_name: str

    @property
    def websocket_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/{self.api.stage}"

    @property
    def callback_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{self.api.stage}"

    @property
    def users(self) -> Users:
        return Users(self.aws.url, self.user_pool_id, self.app_client_id)


@asynccontextmanager
async def running(options: Options, progress: Progress) -> AsyncIterator[System]:
    """The whole system; at the end its connections are closed, `$disconnect` is run, and every process has ended."""
    LOGS.mkdir(parents=True, exist_ok=True)
    runners: dict[str, FunctionRunner] = {}

    async def invoke(function_arn: str, event: dict[str, Any]) -> Invocation:
        return await runners[function_arn].invoke(event)

    async def stop_functions() -> None:
        await asyncio.gather(*(runner.stop() for runner in runners.values()))
        if any(runner.launch is launch.image for runner in runners.values()):
            await asyncio.to_thread(launch.remove_containers)

    async with AsyncExitStack() as stack:
        with progress.step("stack synthesized") as step:
            aws = LocalAws(log=LOGS / "aws.log", port=options.aws_port, dynamodb_url=options.dynamodb_url)
            stack.push_async_callback(aws.stop)
            synthesis = asyncio.create_task(synthesized())
            await aws.start()
            template = await synthesis
            step.result = f"{len(template.resources)} resources, local AWS at {aws.url}"
        with progress.step("user pool and table created") as step:
            await asyncio.to_thread(aws.create, template)
            ids = dict(created(template))
            step.result = ids["AWS::Cognito::UserPool"]

        stack.push_async_callback(stop_functions)
        with progress.step("gateway listening") as step:
            server = GatewayServer(template.api(), invoke)
            port = await server.start(bindable(options.port))
            stack.push_async_callback(server.stop)
            system = System(
                api=server.api,
                aws=aws,
                port=port,
                user_pool_id=ids["AWS::Cognito::UserPool"],
                app_client_id=ids["AWS::Cognito::UserPoolClient"],
                table_name=ids["AWS::DynamoDB::Table"],
            )
            step.result = system.websocket_url

        with progress.step("functions started") as step:
            functions = template.functions()
            way, start = await asyncio.to_thread(chosen, options, {each.target for each in functions.values()})
            for arn, function in functions.items():
                runners[arn] = FunctionRunner(function, start, endpoints(system), concurrency=options.environments)
            await asyncio.gather(*(runner.start() for runner in runners.values()))
            step.result = f"{', '.join(function.target for function in functions.values())} as {way}"
        yield system


async def synthesized() -> Template:
    return Template.read(await asyncio.to_thread(synthesize, launch.ROOT, STATE / "cdk.out"))


def created(template: Template) -> list[tuple[str, str]]:
    return [
        (resource["Type"], template.physical_ids[logical_id]) for logical_id, resource in template.resources.items()
    ]


def chosen(options: Options, targets: set[str]) -> tuple[str, Launch]:
    """How the functions are run; LaunchError if they cannot be run as asked for."""
    way = "processes"
    if options.functions == "image" or (options.functions == "auto" and launch.has_engine()):
        try:
            launch.build_images(targets)
        except launch.LaunchError as error:
            if options.functions == "image":
                raise
            logger.warning("no images, so plain processes are run: %s", error)
            way = "processes, the images could not be built: the log says why"
        else:
            return "images", launch.image
    launch.check_processes(targets)
    return way, launch.process


def endpoints(system: System) -> dict[str, str]:
    """The SDKs' standard variables, by which functions reach the local AWS and the gateway instead of AWS."""
    return {
        "AWS_ACCESS_KEY_ID": CREDENTIALS["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS["aws_secret_access_key"],
        "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": system.callback_url,
        "AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER": system.aws.url,
        "AWS_ENDPOINT_URL_DYNAMODB": system.aws.dynamodb_url,
    }
