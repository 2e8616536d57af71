"""Puts the parts together: template, local AWS, functions, gateway."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from local import launch
from local.aws import CREATED, LocalAws, Users
from local.endpoint import AwsEndpoint
from local.gateway import Invocation
from local.iam import Iam
from local.lambda_runtime import FunctionRunner, Launch
from local.limits import Limits
from local.page import PageServer, local_settings
from local.ports import find_port
from local.progress import Progress
from local.resources import ACCOUNT_ID, Api, Function
from local.server import GatewayServer
from local.template import Template, synthesize
from local.ttl import sweep

STATE = launch.ROOT / ".local"
LOGS = STATE / "logs"
LOCAL_SERVICES = ("cognito-idp", "dynamodb", "execute-api")  # what functions can be seen to call

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How to run the system.

    Attributes:
        template: a synthesized template; None synthesizes the stack of cdk.json.
        context: of that synthesis, over cdk.json's.
        images: the folder of the functions' sources, one folder a bake target.
        port: of the gateway, 0 for any that is free.
        aws_port: of the local Cognito and DynamoDB, likewise.
        page_port: of the page, 0 for any that is free; None serves no page.
        page: the folder of the built page.
        functions: in the built images, as plain processes, or images where there is an engine to build them.
        environments: execution environments of each function.
        dynamodb_url: a DynamoDB to use instead of the built-in one, e.g. DynamoDB Local.
        iam: refuse what the functions' roles do not allow.
        limits: of connections, at the pace of `clock_speed`.
        clock_speed: how many times faster the time of connections and items passes.
        function_timeout: in seconds, instead of the template's.
        in_turn: each message of a connection waits for the one before.
    """

    template: Path | None = None
    context: dict[str, str] = field(default_factory=dict)
    images: Path = launch.ROOT / "images"
    port: int = 0
    aws_port: int = 0
    page_port: int | None = None
    page: Path = launch.ROOT / "frontend" / "dist"
    functions: Literal["auto", "process", "image"] = "auto"
    environments: int = 2
    dynamodb_url: str | None = None
    iam: bool = True
    limits: Limits = Limits()  # noqa: RUF009 - frozen
    clock_speed: float = 1.0
    function_timeout: float | None = None
    in_turn: bool = False


@dataclass(frozen=True)
class System:
    """The running system, and where to reach it.

    Attributes:
        user_pool_id: and the other resources': None where the template has none.
        page_url: None if no page is served.
        page_settings: what the page reads as `config.json`; None if no page is served.
    """

    api: Api
    aws: LocalAws
    iam: Iam
    port: int
    user_pool_id: str | None
    app_client_id: str | None
    table_name: str | None
    page_url: str | None = None
    page_settings: dict[str, Any] | None = None

    @property
    def websocket_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/{self.api.stage}"

    def opening(self, token: str) -> dict[str, Any]:
        """How a client opens a connection with its token, as arguments of `connect` of websockets."""
        route = self.api.routes.get("$connect")
        sources = route.authorizer.identity_sources if route and route.authorizer else ()
        if "route.request.header.Sec-WebSocket-Protocol" in sources:
            return {"uri": self.websocket_url, "subprotocols": ["echo.v1", f"idToken.{token}"]}
        return {"uri": f"{self.websocket_url}?idToken={token}"}

    @property
    def callback_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{self.api.stage}"

    @property
    def users(self) -> Users:
        assert self.user_pool_id
        assert self.app_client_id
        return Users(self.aws.url, self.user_pool_id, self.app_client_id)

    def unused_grants(self) -> list[str]:
        """What the functions' roles allow and nobody has done so far."""
        return sorted(self.iam.unused(LOCAL_SERVICES))


@asynccontextmanager
async def running(options: Options, progress: Progress) -> AsyncIterator[System]:
    """The whole system; at the end its connections are closed, `$disconnect` is run, and every process has ended."""
    LOGS.mkdir(parents=True, exist_ok=True)
    runners: dict[str, FunctionRunner] = {}
    iam = Iam(enforced=options.iam)

    def invoke(function_arn: str, event: dict[str, Any]) -> asyncio.Future[Invocation]:
        return runners[function_arn].invoke(event)

    async def stop_functions() -> None:
        await asyncio.gather(*(runner.stop() for runner in runners.values()))
        if any(runner.launch is launch.image for runner in runners.values()):
            await asyncio.to_thread(launch.remove_containers)

    async with AsyncExitStack() as stack:
        with progress.step("stack synthesized" if options.template is None else "template read") as step:
            if page := bind_page(options):
                stack.push_async_callback(page.stop)
            find_port(options.port, "--port")  # or it is refused now, not after the synthesis
            aws = LocalAws(log=LOGS / "aws.log", port=options.aws_port, dynamodb_url=options.dynamodb_url)
            stack.push_async_callback(aws.stop)
            template = await ready(options, aws)
            # Read now what is read again later: an error is found at once, not half-way.
            _ = template.api(), template.functions(), template.page_config()
            step.result = f"{len(template.resources)} resources" + (f", local AWS at {aws.url}" if aws.started else "")
        if aws.started:
            with progress.step("resources created") as step:
                await asyncio.to_thread(aws.create, template)
                step.result = ", ".join(filter(None, (created(template, type_) for type_ in CREATED)))
        endpoint = AwsEndpoint(iam, aws.urls)
        endpoint_url = await endpoint.start()
        stack.push_async_callback(endpoint.stop)
        for table, attribute in aws.expiring.items():
            task = asyncio.create_task(sweep(aws.client("dynamodb"), table, attribute, options.clock_speed))
            stack.push_async_callback(cancelled, task)

        stack.push_async_callback(stop_functions)
        with progress.step("gateway listening") as step:
            limits = options.limits.compressed(options.clock_speed)
            server = GatewayServer(template.api(), invoke, limits=limits, iam=iam, in_turn=options.in_turn)
            port = await server.start(options.port)
            stack.push_async_callback(server.stop)
            system = System(
                api=server.api,
                aws=aws,
                iam=iam,
                port=port,
                user_pool_id=created(template, "AWS::Cognito::UserPool"),
                app_client_id=created(template, "AWS::Cognito::UserPoolClient"),
                table_name=created(template, "AWS::DynamoDB::Table"),
            )
            step.result = system.websocket_url

        with progress.step("functions started") as step:
            functions = timed(template.functions(), options.function_timeout)
            way, start = await asyncio.to_thread(chosen, options, {each.target for each in functions.values()})
            for arn, function in functions.items():
                environment = {**endpoints(system, endpoint_url), **session(iam, function)}
                runners[arn] = FunctionRunner(function, start, environment, concurrency=options.environments)
            await asyncio.gather(*(runner.start() for runner in runners.values()))
            step.result = f"{', '.join(function.target for function in functions.values())} as {way}"

        config = template.page_config()
        if page and config is not None:
            with progress.step("page listening") as step:
                system = await serve_page(page, config, system, limits)
                step.result = page.url
        yield system


def bind_page(options: Options) -> PageServer | None:
    """Take the page's port; None if there is no page: our own stack has one, another template may."""
    if options.page_port is None:
        return None
    if options.template is not None and Template.read(options.template).page_config() is None:
        return None
    return PageServer(options.page, options.page_port)


async def serve_page(page: PageServer, config: dict[str, Any], system: System, limits: Limits) -> System:
    """Start the page with the system's addresses; return the system with the page's."""
    settings = local_settings(config, websocket_url=system.websocket_url, aws_url=system.aws.url, limits=limits)
    await page.start(settings)
    return dataclasses.replace(system, page_url=page.url, page_settings=settings)


async def ready(options: Options, aws: LocalAws) -> Template:
    """The template, and the local AWS started if the template needs it."""
    if options.template is None:
        synthesis = asyncio.create_task(synthesized(options.context))
        await aws.start()  # meanwhile: our own stack needs it
        return await synthesis
    template = Template.read(options.template)
    if any(created(template, type_) for type_ in CREATED):
        await aws.start()
    return template


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def synthesized(context: dict[str, str]) -> Template:
    return Template.read(await asyncio.to_thread(synthesize, launch.ROOT, STATE / "cdk.out", context))


def created(template: Template, type_: str) -> str | None:
    """The physical id of the template's first resource of a type."""
    ids = [template.physical_ids[name] for name, resource in template.resources.items() if resource["Type"] == type_]
    return ids[0] if ids else None


def timed(functions: dict[str, Function], seconds: float | None) -> dict[str, Function]:
    """The functions with this timeout, or their own."""
    if seconds is None:
        return functions
    return {arn: dataclasses.replace(function, timeout_seconds=seconds) for arn, function in functions.items()}


def session(iam: Iam, function: Function) -> dict[str, str]:
    """The variables with a function's own credentials."""
    arn = f"arn:aws:sts::{ACCOUNT_ID}:assumed-role/{function.role.name}/{function.name}"
    return iam.open_session(function.target, function.role, arn).environment()


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
    launch.check_processes(targets, options.images)
    return way, partial(launch.process, source=options.images)


def endpoints(system: System, endpoint_url: str) -> dict[str, str]:
    """The SDKs' standard variables, by which functions reach the local AWS and the gateway and never AWS itself."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": system.callback_url,
        "AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER": endpoint_url,
        "AWS_ENDPOINT_URL_DYNAMODB": endpoint_url,
    }
