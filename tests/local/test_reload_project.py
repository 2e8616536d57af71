"""Hot reload by `up` in a copy of the project: handlers in real containers, and the code of the stack."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.fixtures import ROOT
from tests.fixtures.engine import docker
from tests.fixtures.make_up import ENVIRONMENT, Up, copy_project, run_up, wait_until

PATIENCE_SECONDS = 60.0  # bounds a wait for an answer
KEPT = "What ran before keeps running."
HANDLER = "images/websocket/websocket.py"
API = "infra/websocket_api.py"
ECHO = '    echo = {"message": body}\n'

# Posts to the connection that has sent the message, at the address that the event names.
POST_TO_OWN_ADDRESS = """
    context = event["requestContext"]
    address = f"https://{context['domainName']}/{context['stage']}"
    own = session.create_client("apigatewaymanagementapi", endpoint_url=address)
    own.post_to_connection(ConnectionId=context["connectionId"], Data=json.dumps({"address": address}))
"""
CALL_S3 = """
    import urllib3
    refused = urllib3.PoolManager().request("GET", "https://rooms.s3.us-east-1.amazonaws.com/")
    echo = {"status": refused.status, "text": refused.data.decode()}
"""


@dataclass(frozen=True)
class Project:
    """A project with a running `up`, and a client that has connected before any edit."""

    up: Up
    phone: ClientConnection

    def ask(self, message: str = "hello") -> dict[str, Any]:
        self.phone.send(message)
        return self.receive()

    def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.phone.recv(PATIENCE_SECONDS))
        return message

    def write(self, file: str, text: str, *, printed: str) -> str:
        """Write a file, wait until this is printed, and return what was printed after the write."""
        start = len(self.printed)
        (self.up.checkout.root / file).write_text(text)
        wait_until(lambda: printed in self.printed[start:], lambda: self.printed[start:])
        return self.printed[start:]

    @property
    def printed(self) -> str:
        return self.up.command.output.read_text()

    @contextmanager
    def edited(self, file: str, old: str, new: str, *, printed: str, restored: str) -> Iterator[str]:
        """Edit a file, and undo the edit at the end; yield what is printed until this text."""
        source = (ROOT / file).read_text()
        assert old in source
        try:
            yield self.write(file, source.replace(old, new), printed=printed)
        finally:
            self.write(file, source, printed=restored)

    @contextmanager
    def edited_handler(self, old: str, new: str, *, printed: str = "✓ websocket reloaded") -> Iterator[str]:
        with self.edited(HANDLER, old, new, printed=printed, restored="✓ websocket reloaded") as told:
            yield told

    @contextmanager
    def edited_stack(self, file: str, old: str, new: str, *, printed: str = "✓ stack applied") -> Iterator[str]:
        with self.edited(file, old, new, printed=printed, restored="✓ stack applied") as told:
            yield told


@pytest.fixture(scope="module")
def assemblies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cached assemblies, which the copies of the project share."""
    return tmp_path_factory.mktemp("assemblies")


@contextmanager
def running(root: Path, assemblies: Path, *arguments: str) -> Iterator[Project]:
    """Run `up` in a copy of the project, with a connected client."""
    with run_up(copy_project(root, assemblies), *arguments) as up:
        url = f"ws://127.0.0.1:{up.port}/prod?idToken={up.run('token').stdout.strip()}"
        with connect(url, proxy=None) as phone:
            yield Project(up, phone)


# In real containers


@pytest.fixture(scope="module")
def in_containers(engine: None, tmp_path_factory: pytest.TempPathFactory, assemblies: Path) -> Iterator[Project]:
    """A project in containers. Its images have other names than the developer's."""
    tag = f"edited-{uuid.uuid4().hex[:8]}"
    root = tmp_path_factory.mktemp("images") / "project"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENT, "TAG", tag)
        try:
            with running(root, assemblies, "--functions=image") as project:
                assert "authorizer, websocket as images" in project.printed
                yield project
        finally:
            docker("image", "rm", f"authorizer:{tag}", f"websocket:{tag}")


@pytest.fixture(scope="module")
def edited_answers(in_containers: Project) -> list[dict[str, Any]]:
    """Edit the handler so that it makes two calls; return what each call sent to the client. Then undo the edit."""
    with in_containers.edited_handler(ECHO, POST_TO_OWN_ADDRESS + CALL_S3):
        return [in_containers.ask(), in_containers.receive()]


def test_edited_handler_is_rebuilt_and_answers_on_a_connection_that_was_open(
    in_containers: Project, edited_answers: list[dict[str, Any]]
) -> None:
    assert [each.keys() for each in edited_answers] == [{"address"}, {"status", "text"}]
    assert in_containers.ask() == {"message": "hello"}


def test_container_posts_to_the_address_that_its_event_names(edited_answers: list[dict[str, Any]]) -> None:
    posted, _ = edited_answers

    assert re.fullmatch(r"https://\w+\.execute-api\.us-east-1\.amazonaws\.com/prod", posted["address"])


def test_container_that_calls_another_service_gets_advice(edited_answers: list[dict[str, Any]]) -> None:
    _, refused = edited_answers

    assert refused["status"] == 501
    assert "s3 is not run locally" in refused["text"]
    assert "Leave the call out, or give the function the address of a stand-in" in refused["text"]


def test_handler_that_cannot_be_built_or_started_is_shown_with_its_line_and_the_last_good_image_serves(
    in_containers: Project,
) -> None:
    missing = (ROOT / HANDLER).read_text().replace("import json\n", "import no_such_module\n")
    with in_containers.edited_handler(ECHO, "    echo = {\n", printed=KEPT) as not_built:
        not_started = in_containers.write(HANDLER, missing, printed=KEPT)
        assert in_containers.ask() == {"message": "hello"}

    assert f'File "{HANDLER}", line {line_of(HANDLER, ECHO)}' in not_built
    assert "SyntaxError: '{' was never closed" in not_built
    assert "Traceback" not in not_built
    assert f'File "{HANDLER}", line {line_of(HANDLER, "import json")}' in not_started
    assert "No module named 'no_such_module'" in not_started


# The code of the stack


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, assemblies: Path) -> Iterator[Project]:
    with running(tmp_path_factory.mktemp("stack") / "project", assemblies) as project:
        yield project


def test_changed_code_of_the_stack_is_synthesized_and_applied(project: Project) -> None:
    line = 'authorizer.add_environment("CREDENTIAL_MODE", credential)\n'
    limit = f'{line}        integration.add_environment("MAX_MESSAGE_BYTES", "30")\n'

    with project.edited_stack(API, line, limit) as told:
        limited = project.ask("m" * 31)

    assert "✓ stack synthesized" in told
    assert limited["error"] == "message_too_large"
    assert project.ask("m" * 31) == {"message": "m" * 31}


def test_stack_that_cannot_be_synthesized_is_shown_with_its_line_and_the_old_stack_serves(project: Project) -> None:
    line = "        self.credential = credential\n"
    with project.edited_stack(API, line, line.replace("credential\n", "\n"), printed=KEPT) as told:
        assert project.ask() == {"message": "hello"}

    assert f'{API}", line {line_of(API, line)}' in told
    assert "SyntaxError: invalid syntax" in told


def line_of(file: str, text: str) -> int:
    return (ROOT / file).read_text().partition(text)[0].count("\n") + 1
