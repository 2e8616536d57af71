"""`make up`: runs the system until Ctrl-C, adds a user, prints mails, and writes a state file for other commands."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from local import example, state
from local.aws.users import Users, make_password
from local.commands import USER
from local.errors import CommandError, TemplateError, explain
from local.instructions import write_instructions
from local.journal import Journal
from local.processes import find_descendants
from local.progress import Progress
from local.state import State
from local.system import Options, System, cancel_and_wait, run_system


async def up(options: Options, progress: Progress, journal: Journal) -> None:
    async with AsyncExitStack() as exits:
        if options.port:
            claim_port(options, progress)
            exits.callback(state.remove, options.port)
        system = await exits.enter_async_context(run_with_report(options, progress, journal))
        from local import reload  # noqa: PLC0415 - not imported earlier, so that the local AWS starts sooner
        from local.aws import mail  # noqa: PLC0415

        password = make_password()
        no_token = await asyncio.to_thread(add_first_user, system, password)
        if system.user_pool_id:
            start_background_task(
                exits, mail.print_mails(system.aws.url, progress.highlight), progress, "Mails are not printed"
            )
        state.save(system.port, describe(system, {USER: password}, progress))
        if not options.port:
            exits.callback(state.remove, system.port)
        progress.say(write_instructions(system, options, user=USER, no_token=no_token))
        start_background_task(exits, reload.watch(system, options, progress), progress, "Changes are not applied")
        exits.callback(progress.say, "\nClosing connections and ending the functions …")
        await asyncio.Event().wait()


def claim_port(options: Options, progress: Progress) -> None:
    """Claim the port before anything starts, and print the processes of a killed `make up` that were ended."""
    ports = {
        "--port": options.port,
        "--aws-port": options.aws_port,
        "--page-port": options.page_port,
        "--inspector-port": options.inspector_port,
    }
    left = state.claim(options.port, {flag: port for flag, port in ports.items() if port})
    if left:
        progress.say(f"Ended processes of an earlier `make up` that was killed: {', '.join(left)}")


def start_background_task(
    exits: AsyncExitStack, work: Coroutine[Any, Any, None], progress: Progress, otherwise: str
) -> None:
    """Start a task that is cancelled when the system stops. If it fails before, print `otherwise` and the error."""

    def report(done: asyncio.Task[None]) -> None:
        if not done.cancelled() and (error := done.exception()):
            progress.say(f"{otherwise} any more: {explain(error)}")

    task = asyncio.create_task(work)
    task.add_done_callback(report)
    exits.push_async_callback(cancel_and_wait, task)


@asynccontextmanager
async def run_with_report(options: Options, progress: Progress, journal: Journal) -> AsyncIterator[System]:
    """Run the system. At the end, after `$disconnect`, print the grants that no function has used."""
    system = None
    try:
        async with run_system(options, progress, journal) as system:
            yield system
    finally:
        unused = system.unused_grants() if system else []
        if unused := [each for each in unused if not each.startswith(f"{example.OPERATOR}:")]:
            progress.say("\n  ".join(("Grants that no function has used:", *unused)))


def add_first_user(system: System, password: str) -> str | None:
    """Add the user of `make token` to the group that may connect; return why that failed, None if it succeeded."""
    if not system.user_pool_id:
        return "the template has no user pool"
    users = Users(system.aws.url, system.user_pool_id, system.app_client_id)
    try:
        users.add(USER, password, example.find_required_groups(system.stack))
        users.app_client  # noqa: B018 - raises CommandError if `make token` would fail
    except CommandError as error:
        return str(error)
    return None


def describe(system: System, users: dict[str, str], progress: Progress) -> State:
    """Return the state of the running system for commands."""
    ports = {"--port": system.port, "--aws-port": system.aws.port}
    if system.page_url:
        ports["--page-port"] = urlsplit(system.page_url).port or 80
    if system.inspector_url:
        ports["--inspector-port"] = urlsplit(system.inspector_url).port or 80
    return State.of_this_process(
        ports,
        children=find_descendants(os.getpid()),
        ready=True,
        callback_url=system.callback_url,
        region=system.stack.account.region,
        cognito_url=system.aws.url,
        dynamodb_url=system.aws.dynamodb_url,
        user_pool_id=system.user_pool_id,
        app_client_id=system.app_client_id,
        table_name=example.find_connection_table(system.stack) or system.table_name,
        users=users,
        **open_operator_session(system, progress),
    )


def open_operator_session(system: System, progress: Progress) -> dict[str, Any]:
    """Open a session with the operator policy for `python -m ops`; return its attributes for the state file."""
    try:
        policy = example.find_operator_policy(system.template)
    except TemplateError as error:  # functions run without the operator's policy
        progress.say(f"The operator's policy is not enforced: {error}")
        policy = None
    if policy is None:
        return {}
    account = system.stack.account
    session = system.iam.open_session(
        example.OPERATOR, policy, f"arn:{account.partition}:iam::{account.id}:user/{example.OPERATOR}"
    )
    credentials = [session.access_key_id, session.secret_access_key, session.session_token]
    return {"operator_url": system.endpoint_url, "credentials": credentials}
