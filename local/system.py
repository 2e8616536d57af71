"""Starts the local system: reads the template, starts the local AWS, then everything in serving.py."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local import paths
from local.apigateway.limits import Limits
from local.assembly import find_cached_template, synthesize_template
from local.aws.iam import SERVICES, Iam
from local.aws.ministack import LocalAws
from local.aws.resources import CreatedResources, create_resources
from local.aws.ttl import sweep
from local.aws.users import Users
from local.cloudformation.resource_types import CREATED
from local.cloudformation.stack import Stack
from local.cloudformation.template import Template
from local.functions import Functions, LaunchMode
from local.journal import Journal
from local.page_settings import PAGE_CONFIG, find_built_page
from local.paths import ROOT
from local.ports import check_localhost, find_port
from local.progress import Progress

if TYPE_CHECKING:
    from local.apigateway.server import GatewayServer


@dataclass(frozen=True)
class Options:
    """How to run the system.

    Attributes:
        template: a synthesized template; None synthesizes the stack of cdk.json.
        context: context values for that synthesis, which override cdk.json's.
        images: the folder of the functions' sources, one folder for each bake target.
        port: the gateway's port, 0 for any free one.
        aws_port: the port of the local Cognito and DynamoDB, 0 for any free one.
        page_port: the page's port, 0 for any free one; None serves no page.
        page: the folder of the built page.
        inspector: the folder of the built inspector.
        inspector_port: the inspector's port, 0 for any free one; None serves no inspector.
        functions: run the built images, plain processes, or images if an engine can build them.
        environments: the maximum of execution environments for each function.
        dynamodb_url: a DynamoDB to use instead of the built-in one, e.g. DynamoDB Local.
        iam: whether calls that the functions' roles do not allow are refused.
        limits: the limits of connections, before `clock_speed` is applied.
        clock_speed: how many times faster connections and items reach their ends.
        function_timeout: the timeout of every function in seconds, instead of the template's.
        in_turn: handle a connection's messages one after the other.
    """

    template: Path | None = None
    context: dict[str, str] = field(default_factory=dict)
    images: Path = ROOT / "images"
    port: int = 0
    aws_port: int = 0
    page_port: int | None = None
    page: Path = ROOT / "frontend" / "dist" / "page"
    inspector: Path = ROOT / "frontend" / "dist" / "inspector"
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
    """The running system, and where to reach its parts.

    Attributes:
        started_at: Unix time before any file was read, so that later edits are noticed.
        endpoint_url: the endpoint that functions call instead of AWS.
        page_url: None if no page is served.
        page_settings: what the page reads as `config.json`; None if no page is served.
        inspector_url: None if no inspector is served.
    """

    stack: Stack
    template: Template
    created: CreatedResources
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
        return self.stack.find_first("AWS::Cognito::UserPool")

    @property
    def app_client_id(self) -> str | None:
        return self.stack.find_first("AWS::Cognito::UserPoolClient")

    @property
    def table_name(self) -> str | None:
        return self.stack.find_first("AWS::DynamoDB::Table")

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
        """Return the grants in the functions' roles that no function has used so far."""
        return sorted(self.iam.unused_grants(SERVICES))


@asynccontextmanager
async def run_system(options: Options, progress: Progress, journal: Journal | None = None) -> AsyncIterator[System]:
    """Run the whole system. At the end close its connections, run `$disconnect`, and end every process.

    With a journal, everything that happens is recorded, and invocations are traced.
    """
    started_at = time.time()
    paths.LOGS.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as exits:
        given = Template.read(options.template) if options.template else None
        check_before_synthesis(options, given)
        aws = LocalAws(log=paths.LOGS / "aws.log", port=options.aws_port, dynamodb_url=options.dynamodb_url)
        exits.push_async_callback(aws.stop)

        template = await read_or_synthesize_template(options, progress, given)
        # The import takes about as long as starting the local AWS and creating the resources, so do both at once.
        importing = asyncio.create_task(asyncio.to_thread(importlib.import_module, "local.serving"))
        created = await start_local_aws(template, aws, progress)
        for table, attribute in created.expiring.items():
            task = asyncio.create_task(sweep(aws.client("dynamodb"), table, attribute, options.clock_speed))
            exits.push_async_callback(cancel_and_wait, task)
        serving = await importing
        yield await serving.serve(
            options,
            progress,
            exits,
            template=template.with_physical_ids(created.physical_ids),
            created=created,
            aws=aws,
            journal=journal,
            started_at=started_at,
        )


def check_before_synthesis(options: Options, given: Template | None) -> None:
    """Check the ports and the built page first, because a synthesis takes long.

    Raises:
        LaunchError: the page is not built, or a port is not available.
    """
    if options.page_port is not None and (given is None or PAGE_CONFIG in given.outputs):
        find_built_page(options.page)
        check_localhost(options.page_port, "--page-port")
    if options.inspector_port is not None:
        check_localhost(options.inspector_port, "--inspector-port")
    find_port(options.port, "--port")


async def read_or_synthesize_template(options: Options, progress: Progress, given: Template | None) -> Template:
    """Return the given template; without one, that of the stack of cdk.json, from the cache or synthesized."""
    cached = None if given else await asyncio.to_thread(find_cached_template, options.context)
    with progress.step("template read" if given else "stack unchanged" if cached else "stack synthesized") as step:
        if given:
            template = given
        elif cached:
            template = Template.read(cached)
        else:
            template = Template.read(await asyncio.to_thread(synthesize_template, options.context))
        step.result = f"{len(template.resources)} resources"
    return template


async def start_local_aws(template: Template, aws: LocalAws, progress: Progress) -> CreatedResources:
    """Start the local AWS and create the template's resources in it. Do nothing if the template has none."""
    aws.account = template.account
    if not any(resource["Type"] in CREATED for resource in template.resources.values()):
        return CreatedResources()
    with progress.step("local AWS started") as step:
        await aws.start()
        step.result = aws.url
    with progress.step("resources created") as step:
        created = await asyncio.to_thread(create_resources, template, aws)
        step.result = ", ".join(created.physical_ids.values())
    return created


async def cancel_and_wait(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
