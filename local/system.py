"""Puts the parts together: template, local AWS, functions, gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local import paths
from local.apigateway.limits import Limits
from local.apigateway.server import GatewayServer
from local.assembly import find_cached_template, synthesize_template
from local.aws.endpoint import AwsEndpoint
from local.aws.iam import SERVICES, Iam, Session
from local.aws.ministack import LocalAws
from local.aws.resources import Created, create_resources
from local.aws.ttl import sweep
from local.aws.users import Users
from local.cloudformation.resource_types import CREATED
from local.cloudformation.stack import Stack
from local.cloudformation.template import Template
from local.functions import Functions, LaunchMode
from local.inspector import Inspector
from local.journal import Journal
from local.lambda_.function import Function
from local.page import PAGE_CONFIG, PageServer, local_settings, parse_page_config
from local.paths import ROOT
from local.ports import find_port
from local.progress import Progress
from local.traces import TraceListener


@dataclass(frozen=True)
class Options:
    """How to run the system.

    Attributes:
        template: a synthesized template; None synthesizes the stack of cdk.json.
        context: of that synthesis, over cdk.json's.
        images: the folder of the functions' sources, one folder a bake target.
        port: of the gateway, 0 for any that is free.
        aws_port: of the local Cognito and DynamoDB, 0 for any that is free.
        page_port: of the page, 0 for any that is free; None serves no page.
        page: the folder of the built page.
        inspector_port: of the inspector, 0 for any that is free; None serves no inspector.
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
    images: Path = ROOT / "images"
    port: int = 0
    aws_port: int = 0
    page_port: int | None = None
    page: Path = ROOT / "frontend" / "dist"
    inspector_port: int | None = None
    functions: LaunchMode = "auto"
    environments: int = 2
    dynamodb_url: str | None = None
    iam: bool = True
    limits: Limits = Limits()  # noqa: RUF009 - frozen
    clock_speed: float = 1.0
    function_timeout: float | None = None
    in_turn: bool = False


@dataclass
class System:
    """The running system, and where to reach it.

    Attributes:
        started_at: Unix time before anything was read.
        endpoint_url: what functions call instead of AWS.
        page_url: None if no page is served.
        page_settings: what the page reads as `config.json`; None if no page is served.
        inspector_url: None if no inspector is served.
    """

    stack: Stack
    template: Template
    created: Created
    aws: LocalAws
    iam: Iam
    functions: Functions
    server: GatewayServer
    port: int
    started_at: float
    endpoint_url: str = ""
    page_url: str | None = None
    page_settings: dict[str, Any] | None = None
    inspector_url: str | None = None

    @property
    def user_pool_id(self) -> str | None:
        return self.stack.first("AWS::Cognito::UserPool")

    @property
    def app_client_id(self) -> str | None:
        return self.stack.first("AWS::Cognito::UserPoolClient")

    @property
    def table_name(self) -> str | None:
        return self.stack.first("AWS::DynamoDB::Table")

    @property
    def websocket_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/{self.stack.api.stage}"

    @property
    def callback_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{self.stack.api.stage}"

    @property
    def users(self) -> Users:
        assert self.user_pool_id
        assert self.app_client_id
        return Users(self.aws.url, self.user_pool_id, self.app_client_id)

    def unused_grants(self) -> list[str]:
        """Return what the functions' roles allow and no function has used so far."""
        return sorted(self.iam.unused_grants(SERVICES))


@asynccontextmanager
async def run_system(options: Options, progress: Progress, journal: Journal | None = None) -> AsyncIterator[System]:
    """Run the whole system; at the end close its connections, run `$disconnect`, and end every process.

    With a journal everything that happens is recorded and traced.
    """
    started_at = time.time()
    paths.LOGS.mkdir(parents=True, exist_ok=True)
    iam = Iam(enforced=options.iam)
    limits = options.limits.speed_up(options.clock_speed)
    async with AsyncExitStack() as exits:
        given = Template.read(options.template) if options.template else None
        page = bind_page(options, given)
        if page:
            exits.push_async_callback(page.stop)
        inspector = await start_inspector(options, journal, exits)
        traced = await start_tracing(journal, exits)
        find_port(options.port, "--port")  # or it is refused after the synthesis
        aws = LocalAws(log=paths.LOGS / "aws.log", port=options.aws_port, dynamodb_url=options.dynamodb_url)
        exits.push_async_callback(aws.stop)

        template = await get_template(options, progress, aws, given)
        created = Created()
        if aws.started:
            with progress.step("resources created") as step:
                created = await asyncio.to_thread(create_resources, template, aws)
                step.result = ", ".join(created.physical_ids.values())
        template = template.with_physical_ids(created.physical_ids)
        stack = template.resolve([PAGE_CONFIG])
        for table, attribute in created.expiring.items():
            task = asyncio.create_task(sweep(aws.client("dynamodb"), table, attribute, options.clock_speed))
            exits.push_async_callback(cancel, task)
        page_config = parse_page_config(stack.outputs)

        endpoint = AwsEndpoint(iam, aws.urls, stack.account, journal)
        endpoint_url = await endpoint.start()
        exits.push_async_callback(endpoint.stop)
        functions = Functions(
            mode=options.functions,
            source=options.images,
            environments=options.environments,
            timeout=options.function_timeout,
            mounts=endpoint.files(),
            journal=journal,
        )
        exits.push_async_callback(functions.stop)
        with progress.step("gateway listening") as step:
            server = GatewayServer(
                stack.api, functions.invoke, limits=limits, iam=iam, in_turn=options.in_turn, journal=journal
            )
            port = await server.start(options.port)
            exits.push_async_callback(server.stop)
            endpoint.route_gateway(stack.api.domain_name, port)
            system = System(stack, template, created, aws, iam, functions, server, port, started_at, endpoint_url)
            step.result = system.websocket_url

        with progress.step("functions started") as step:
            sessions = {arn: open_session(iam, stack, function) for arn, function in stack.functions.items()}

            def environment(function: Function) -> dict[str, str]:
                return {
                    **endpoint.environment(function.environment),
                    **endpoint_variables(system, endpoint_url),
                    **traced,
                    **sessions[function.arn].environment(),
                }

            step.result = await functions.start(stack.functions, environment)
        if page and page_config is not None:
            with progress.step("page listening") as step:
                system.page_settings = local_settings(
                    page_config, websocket_url=system.websocket_url, aws_url=aws.url, limits=limits
                )
                await page.start(system.page_settings)
                system.page_url = step.result = page.url
        system.inspector_url = inspector.url if inspector else None
        yield system


def bind_page(options: Options, given: Template | None) -> PageServer | None:
    """Take the page's port; return None if there is no page: our own stack has one, another template may."""
    if options.page_port is None or (given and PAGE_CONFIG not in given.outputs):
        return None
    return PageServer(options.page, options.page_port)


async def start_inspector(options: Options, journal: Journal | None, exits: AsyncExitStack) -> Inspector | None:
    """Start the inspector, which ends last: it shows how the connections end."""
    if journal is None or options.inspector_port is None:
        return None
    inspector = Inspector(journal, options.page, options.inspector_port)
    exits.push_async_callback(inspector.stop)
    await inspector.start()
    return inspector


async def start_tracing(journal: Journal | None, exits: AsyncExitStack) -> dict[str, str]:
    """Listen for traces; return the functions' variables that lead there."""
    if journal is None:
        return {}
    listener = TraceListener(journal)
    address = await listener.start()
    exits.push_async_callback(listener.stop)
    return {"AWS_XRAY_DAEMON_ADDRESS": address}


async def get_template(options: Options, progress: Progress, aws: LocalAws, given: Template | None) -> Template:
    """Return the given template, or our own stack's; start the local AWS if the template needs it."""
    cached = None if given else await asyncio.to_thread(find_cached_template, options.context)
    with progress.step("template read" if given else "stack unchanged" if cached else "stack synthesized") as step:
        if given:
            template = given
        elif cached:
            template = Template.read(cached)
        else:
            template = Template.read(await asyncio.to_thread(synthesize_template, options.context))
        aws.account = template.account
        if any(resource["Type"] in CREATED for resource in template.resources.values()):
            await aws.start()
        step.result = f"{len(template.resources)} resources" + (f", local AWS at {aws.url}" if aws.started else "")
    return template


async def cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def open_session(iam: Iam, stack: Stack, function: Function) -> Session:
    """Open a session of a function's role, with credentials of its own."""
    account = stack.account
    arn = f"arn:{account.partition}:sts::{account.id}:assumed-role/{function.role.name}/{function.name}"
    return iam.open_session(function.target, function.role, arn)


def endpoint_variables(system: System, endpoint_url: str) -> dict[str, str]:
    """Return the SDKs' variables by which functions reach the local AWS and the gateway instead of AWS."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": system.callback_url,
        "AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER": endpoint_url,
        "AWS_ENDPOINT_URL_DYNAMODB": endpoint_url,
    }
