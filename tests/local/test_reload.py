"""Hot reload of a running system: code and stack change; users, table, tokens and connections stay."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect

from local import paths, up
from local.example import build_handshake
from local.progress import Progress
from local.reload import find_changed_targets, find_edited_since, watch
from local.system import Options, System, cancel_and_wait, run_system
from tests.fixtures import ROOT
from tests.fixtures.gateway import PATIENCE_SECONDS, receive

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning:pycognito"),
]

PASSWORD = "correct-Horse-battery-1"
ECHO = 'echo = {"message": body}'


@dataclass
class WatchedSystem:
    """A running system with a copied template and copied sources, and its terminal's output."""

    system: System
    template: Path
    handler: Path
    printed: io.StringIO
    client: ClientConnection

    async def ask(self, message: str = "hello") -> dict[str, Any]:
        await self.client.send(message)
        answer: dict[str, Any] = json.loads(await receive(self.client))
        return answer

    async def until_printed(self, text: str) -> str:
        """Wait until a text is printed after this call; return all that was printed after it."""
        start = len(self.printed.getvalue())
        async with asyncio.timeout(PATIENCE_SECONDS):
            while text not in (new := self.printed.getvalue()[start:]):
                await asyncio.sleep(0.01)
        return new

    async def edit_handler(self, old: str, new: str, *, printed: str) -> str:
        until = asyncio.ensure_future(self.until_printed(printed))
        await asyncio.sleep(0)
        source = (ROOT / "images" / "websocket" / "websocket.py").read_text()
        assert old in source
        self.handler.write_text(source.replace(old, new))
        return await until

    async def edit_template(self, change: Callable[[dict[str, Any]], object], *, printed: str) -> str:
        until = asyncio.ensure_future(self.until_printed(printed))
        await asyncio.sleep(0)
        template = json.loads(self.template.read_text())
        change(template["Resources"])
        self.template.write_text(json.dumps(template))
        return await until


def read_variables(resources: dict[str, Any]) -> dict[str, str]:
    """Return the environment variables of the websocket function of a template."""
    function = next(each for each in resources.values() if each.get("Metadata", {}).get("BakeTarget") == "websocket")
    variables: dict[str, str] = function["Properties"]["Environment"]["Variables"]
    return variables


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(own_template: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WatchedSystem]:
    folder = tmp_path_factory.mktemp("project")
    template = Path(shutil.copy(own_template, folder))
    images = Path(shutil.copytree(ROOT / "images", folder / "images"))
    printed = io.StringIO()
    options = Options(functions="process", template=template, images=images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "LOGS", folder / "logs")
        patch.setattr(paths, "STATE", folder)
        async with AsyncExitStack() as exits:
            system = await exits.enter_async_context(run_system(options, Progress(printed)))
            exits.push_async_callback(cancel_and_wait, asyncio.create_task(watch(system, options, Progress(printed))))
            system.users.add("ada@example.com", PASSWORD)
            token = system.users.get_id_token("ada@example.com", PASSWORD)
            client = await exits.enter_async_context(connect(**build_handshake(system, token)))
            yield WatchedSystem(system, template, images / "websocket" / "websocket.py", printed, client)


async def test_edited_handler_answers_on_a_connection_that_was_open(watched: WatchedSystem) -> None:
    await watched.edit_handler(ECHO, 'echo = {"edited": body}', printed="✓ websocket reloaded")

    assert [await watched.ask(), await watched.ask()] == [{"edited": "hello"}] * 2


async def test_code_that_does_not_start_is_shown_and_the_last_good_code_serves(watched: WatchedSystem) -> None:
    await watched.edit_handler(ECHO, 'echo = {"good": body}', printed="✓ websocket reloaded")

    syntax = await watched.edit_handler(ECHO, "echo = {", printed="What ran before keeps running.")
    missing = await watched.edit_handler(
        "import json\n", "import no_such_module\n", printed="What ran before keeps running."
    )

    line = (ROOT / "images" / "websocket" / "websocket.py").read_text().partition(ECHO)[0].count("\n") + 1
    assert "websocket/websocket.py" in syntax
    assert f"line {line}" in syntax
    assert "No module named 'no_such_module'" in missing
    assert "Traceback" not in syntax + missing
    assert await watched.ask() == {"good": "hello"}


async def test_function_is_reloaded_although_another_one_does_not_start(watched: WatchedSystem) -> None:
    authorizer = watched.handler.parents[1] / "authorizer" / "authorizer.py"
    source = authorizer.read_text()
    authorizer.write_text("import no_such_module\n")
    both = await watched.edit_handler(ECHO, 'echo = {"both": body}', printed="What ran before keeps running.")

    assert "No module named 'no_such_module'" in both
    assert await watched.ask() == {"both": "hello"}

    until = asyncio.ensure_future(watched.until_printed("✓ authorizer reloaded"))
    await asyncio.sleep(0)
    authorizer.write_text(source)
    await until


async def test_change_of_the_folder_itself_does_not_end_the_watch(watched: WatchedSystem) -> None:
    os.utime(watched.handler.parents[1])

    await watched.edit_handler(ECHO, 'echo = {"touched": body}', printed="✓ websocket reloaded")

    assert await watched.ask() == {"touched": "hello"}


async def test_code_and_the_setting_that_it_needs_may_be_edited_one_after_the_other(watched: WatchedSystem) -> None:
    def set_greeting(resources: dict[str, Any]) -> None:
        read_variables(resources)["GREETING"] = "ahoy"

    def remove_greeting(resources: dict[str, Any]) -> None:
        del read_variables(resources)["GREETING"]

    kept, greeted = 'KEEPALIVE = {"keepalive": True}', 'KEEPALIVE = {os.environ["GREETING"]: True}'

    code_without_setting = await watched.edit_handler(kept, greeted, printed="What ran before keeps running.")
    await watched.edit_template(set_greeting, printed="✓ websocket reloaded")
    answer = await watched.ask('{"action": "keepalive"}')
    setting_without_code = await watched.edit_template(remove_greeting, printed="What ran before keeps running.")
    await watched.edit_handler(kept, kept, printed="✓ stack applied")

    assert answer == {"ahoy": True}
    assert "✗ websocket reloaded" in code_without_setting
    assert "✗ stack applied" in setting_without_code
    assert "KeyError: 'GREETING'" in code_without_setting
    assert "KeyError: 'GREETING'" in setting_without_code
    assert await watched.ask('{"action": "keepalive"}') == {"keepalive": True}


async def test_changed_settings_and_routes_are_applied(watched: WatchedSystem) -> None:
    def change(resources: dict[str, Any]) -> None:
        read_variables(resources)["MAX_MESSAGE_BYTES"] = "30"
        del resources[next(id_ for id_, each in resources.items() if each["Properties"].get("RouteKey") == "keepalive")]

    before = await watched.ask('{"action": "keepalive"}')

    printed = await watched.edit_template(change, printed="stack applied")

    assert "settings of websocket; API" in printed
    assert before == {"keepalive": True}
    # The sessions from before are kept, because they know which grants were used.
    assert len(watched.system.iam.sessions) == len(watched.system.stack.functions)
    assert await watched.ask('{"action": "keepalive"}') == {"message": '{"action": "keepalive"}'}  # echoed by $default
    assert (await watched.ask("m" * 31))["error"] == "message_too_large"


async def test_removed_grant_is_refused_from_the_next_call_on(watched: WatchedSystem) -> None:
    def change(resources: dict[str, Any]) -> None:
        for resource in resources.values():
            if resource["Type"] == "AWS::IAM::Policy":
                statements = resource["Properties"]["PolicyDocument"]["Statement"]
                statements[:] = [each for each in statements if each["Action"] != "execute-api:ManageConnections"]

    printed = await watched.edit_template(change, printed="stack applied")

    assert "role of websocket" in printed
    assert (await watched.ask("hi"))["message"] == "Internal server error"


async def test_operator_policy_is_applied(watched: WatchedSystem) -> None:
    session = up.open_operator_session(watched.system, Progress(watched.printed))
    policies: list[Any] = []

    def change(resources: dict[str, Any]) -> None:
        policies.extend(each for each in resources.values() if each["Type"] == "AWS::IAM::ManagedPolicy")
        for policy in policies:
            statements = policy["Properties"]["PolicyDocument"]["Statement"]
            statements[:] = [each for each in statements if "cognito-idp:ListUsers" not in each["Action"]]

    def denial() -> object:
        pool = watched.system.stack.account.build_arn("AWS::Cognito::UserPool", watched.system.user_pool_id or "")
        return watched.system.iam.authorize(session["credentials"][0], "cognito-idp:ListUsers", pool)

    before = denial()
    printed = await watched.edit_template(change, printed="stack applied")

    assert "operator's policy" in printed
    assert len(policies) == 1
    assert (before is None, denial() is None) == (True, False)


async def test_change_that_needs_a_restart_says_so_and_why(watched: WatchedSystem) -> None:
    def change(resources: dict[str, Any]) -> None:
        table = next(each for each in resources.values() if each["Type"] == "AWS::DynamoDB::Table")
        table["Properties"]["TimeToLiveSpecification"]["AttributeName"] = "expires"

    printed = await watched.edit_template(change, printed="What ran before keeps running.")

    assert re.search(r": ConnectionTable\w+ is created at the start only: press Ctrl-C and start again", printed)


async def test_stack_that_cannot_be_run_is_named_and_changes_nothing(watched: WatchedSystem) -> None:
    def change(resources: dict[str, Any]) -> None:
        next(each for each in resources.values() if "RouteKey" in each["Properties"])["Properties"].pop("Target")

    printed = await watched.edit_template(change, printed="What ran before keeps running.")

    assert "has no Target" in printed


async def test_file_that_was_edited_during_the_start_is_found(tmp_path: Path) -> None:
    for name, seconds in (("before.py", 99), ("after.py", 101), ("after.pyc", 101)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (seconds, seconds))

    assert [file.name for file in find_edited_since(100, tmp_path)] == ["after.py"]


@pytest.mark.parametrize(
    ("files", "as_processes", "as_images"),
    [
        (["websocket/websocket.py"], {"websocket"}, {"websocket"}),
        (
            ["websocket/websocket.py", "authorizer/requirements.txt"],
            {"websocket", "authorizer"},
            {"websocket", "authorizer"},
        ),
        (["rie/Dockerfile"], set(), set()),
        (["Dockerfile"], set(), {"websocket", "authorizer"}),
        (["build/trim_packages.py"], set(), {"websocket", "authorizer"}),
    ],
)
async def test_file_belongs_to_its_target_or_to_every_image(
    files: list[str], as_processes: set[str], as_images: set[str]
) -> None:
    changed, targets = {Path(file) for file in files}, {"websocket", "authorizer"}

    assert find_changed_targets(changed, targets, in_images=False) == as_processes
    assert find_changed_targets(changed, targets, in_images=True) == as_images
