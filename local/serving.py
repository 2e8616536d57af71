"""Starts all servers and functions: the endpoint for AWS, the gateway, the functions, the page and the inspector."""

from __future__ import annotations

from contextlib import AsyncExitStack

from local.apigateway.server import GatewayServer
from local.aws.endpoint import AwsEndpoint
from local.aws.iam import Iam, Session
from local.aws.ministack import LocalAws
from local.aws.resources import CreatedResources
from local.cloudformation.stack import Stack
from local.cloudformation.template import Template
from local.functions import Functions
from local.inspector import Inspector
from local.journal import Journal
from local.lambda_.function import Function
from local.page import PageServer
from local.page_settings import PAGE_CONFIG, build_local_settings, parse_page_config
from local.progress import Progress
from local.system import Options, System
from local.traces import TraceListener


async def serve(
    options: Options,
    progress: Progress,
    exits: AsyncExitStack,
    *,
    template: Template,
    created: CreatedResources,
    aws: LocalAws,
    journal: Journal | None,
    started_at: float,
) -> System:
    """Start everything that needs the created resources. `exits` stops the parts in reverse order."""
    iam = Iam(enforced=options.iam)
    limits = options.limits.speed_up(options.clock_speed)
    stack = template.resolve([PAGE_CONFIG])
    page_config = parse_page_config(stack.outputs)
    inspector = await start_inspector(options, journal, exits)
    traced = await start_tracing(journal, exits)

    endpoint = AwsEndpoint(iam, aws.urls, stack.account, journal)
    endpoint_url = await endpoint.start()
    exits.push_async_callback(endpoint.stop)
    functions = Functions(
        mode=options.functions,
        source=options.images,
        environments=options.environments,
        timeout=options.function_timeout,
        mounts=endpoint.list_files(),
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

        def build_environment(function: Function) -> dict[str, str]:
            return {
                **endpoint.build_environment(function.environment),
                **build_endpoint_variables(system, endpoint_url),
                **traced,
                **sessions[function.arn].build_environment(),
            }

        step.result = await functions.start(stack.functions, build_environment)
    if options.page_port is not None and page_config is not None:
        with progress.step("page listening") as step:
            page = PageServer(options.page, options.page_port)
            exits.push_async_callback(page.stop)
            system.page_settings = build_local_settings(
                page_config, websocket_url=system.websocket_url, aws_url=aws.url, limits=limits
            )
            await page.start(system.page_settings)
            system.page_url = step.result = page.url
    system.inspector_url = inspector.url if inspector else None
    return system


async def start_inspector(options: Options, journal: Journal | None, exits: AsyncExitStack) -> Inspector | None:
    """Start the inspector. It is started first so that it stops last: it shows how the connections end."""
    if journal is None or options.inspector_port is None:
        return None
    inspector = Inspector(journal, options.inspector, options.inspector_port)
    exits.push_async_callback(inspector.stop)
    await inspector.start()
    return inspector


async def start_tracing(journal: Journal | None, exits: AsyncExitStack) -> dict[str, str]:
    """Listen for traces; return the variables that make functions send their traces there."""
    if journal is None:
        return {}
    listener = TraceListener(journal)
    address = await listener.start()
    exits.push_async_callback(listener.stop)
    return {"AWS_XRAY_DAEMON_ADDRESS": address}


def open_session(iam: Iam, stack: Stack, function: Function) -> Session:
    """Open a session of a function's role, with its own credentials."""
    account = stack.account
    arn = f"arn:{account.partition}:sts::{account.id}:assumed-role/{function.role.name}/{function.name}"
    return iam.open_session(function.target, function.role, arn)


def build_endpoint_variables(system: System, endpoint_url: str) -> dict[str, str]:
    """Return the SDKs' variables that make functions call the local AWS and the gateway instead of AWS."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": system.callback_url,
        "AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER": endpoint_url,
        "AWS_ENDPOINT_URL_DYNAMODB": endpoint_url,
    }
