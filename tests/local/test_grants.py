"""Our own stack with a missing or an unused grant: the demo names it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from local import paths
from local.demo import demo, show_everything
from local.progress import Progress, StepFailed
from local.system import Options, run_system

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning:pycognito")

Document = dict[str, Any]
Change = Callable[[Document], None]
Write = Callable[..., Path]

EXECUTE = "arn:aws:execute-api:us-east-1:000000000000:localapi00"
TABLE = r"arn:aws:dynamodb:us-east-1:000000000000:table/WebSocketCognito-ConnectionTable\w+"


@pytest.fixture(scope="module")
def synthesized(own_template: Path) -> Document:
    document: Document = json.loads(own_template.read_text())
    return document


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the logs apart from those of a `make up` that runs beside the tests."""
    monkeypatch.setattr(paths, "LOGS", tmp_path / "logs")


@pytest.fixture
def write(synthesized: Document, tmp_path: Path) -> Write:
    """Write the template with these changes."""

    def write_template(*changes: Change) -> Path:
        document = deepcopy(synthesized)
        for change in changes:
            change(document)
        path = tmp_path / "WebSocketCognito.template.json"
        path.write_text(json.dumps(document))
        return path

    return write_template


def find_statements(document: Document) -> list[dict[str, Any]]:
    """Return the statements of the websocket function's role."""
    (policy,) = (
        resource["Properties"]["PolicyDocument"]
        for name, resource in document["Resources"].items()
        if resource["Type"] == "AWS::IAM::Policy" and name.startswith("WebSocketRole")
    )
    found: list[dict[str, Any]] = policy["Statement"]
    return found


def remove_action(action: str) -> Change:
    """Return a change that removes an action from the role."""

    def change(document: Document) -> None:
        (statement,) = (each for each in find_statements(document) if action in each["Action"])
        statement["Action"] = [each for each in list_actions(statement) if each != action]
        if not statement["Action"]:
            find_statements(document).remove(statement)

    return change


def list_actions(statement: dict[str, Any]) -> list[str]:
    action = statement["Action"]
    return action if isinstance(action, list) else [action]


def add_statement(statement: dict[str, Any]) -> Change:
    return lambda document: find_statements(document).append(statement)


def remove_permission(source: str) -> Change:
    """Return a change that removes API Gateway's permission for the route or authorizer whose ARN contains this."""

    def change(document: Document) -> None:
        (name,) = (
            name
            for name, resource in document["Resources"].items()
            if resource["Type"] == "AWS::Lambda::Permission" and source in json.dumps(resource["Properties"])
        )
        del document["Resources"][name]

    return change


def add_permission(name: str, function_name: str, source_arn: str) -> Change:
    properties = {"FunctionName": function_name, "SourceArn": source_arn}
    permission = {"Action": "lambda:InvokeFunction", "Principal": "apigateway.amazonaws.com", **properties}
    resource = {"Type": "AWS::Lambda::Permission", "Properties": permission}
    return lambda document: document["Resources"].update({name: resource})


LACKING = [
    remove_action("dynamodb:PutItem"),
    remove_action("execute-api:ManageConnections"),
    remove_permission("/*$connect"),
    remove_permission("/authorizers/"),
]


async def run_demo(template: Path, **options: Any) -> str:
    """Return what the demo prints."""
    output = io.StringIO()
    await demo(Options(template=template, functions="process", **options), Progress(output))
    return output.getvalue()


async def run_failing_demo(template: Path) -> str:
    """Return the error with which the demo fails."""
    with pytest.raises(StepFailed) as failed:
        await run_demo(template)
    return str(failed.value)


def find_advice(text: str, logical_id: str) -> Iterator[tuple[str, Change]]:
    """Yield what is advised, in short, and the change of the template that follows it."""
    for advised in re.findall(r"^websocket may not .* the statement ({.*})$", text, re.MULTILINE):
        statement = json.loads(advised)
        yield " ".join(statement.values()), add_statement(statement)
    pattern = r"^API Gateway may not invoke (\S+): add an AWS::Lambda::Permission with SourceArn (\S+)$"
    for function, source_arn in re.findall(pattern, text, re.MULTILINE):
        yield f"{function} {source_arn}", add_permission(logical_id, function, source_arn)


# The steps at which the demo fails, one after the other, and what is advised each time.
FAILURES = [
    (
        "Ada connects with it: .* 500",
        r"WebSocketCognito-AuthorizerFunction\w+",
        rf"{EXECUTE}/authorizers/WebSocketCognito-ApiAuthorizer\w+",
    ),
    ("Ada connects with it: .* 500", r"WebSocketCognito-WebSocketFunction\w+", rf"{EXECUTE}/prod/\$connect"),
    ("Ada connects with it: .* 502", "Allow dynamodb:PutItem", TABLE),
    ("message echoed: ", "Allow execute-api:ManageConnections", rf"{EXECUTE}/prod/POST/@connections/\*"),
    ("Bob's token runs out: ", "Allow execute-api:ManageConnections", rf"{EXECUTE}/prod/DELETE/@connections/\*"),
]


async def test_following_the_advice_leads_to_a_stack_that_works(write: Write) -> None:
    changes = [*LACKING]

    for step, named, resource in FAILURES:
        text = await run_failing_demo(write(*changes))
        assert re.match(step, text)
        ((advised, change),) = find_advice(text, f"Advised{len(changes)}")
        assert re.fullmatch(f"{named} {resource}", advised)
        changes.append(change)

    assert "Everything works" in await run_demo(write(*changes))


async def test_nothing_is_missing_if_iam_is_off(write: Write) -> None:
    assert "Everything works" in await run_demo(write(*LACKING), iam=False)


async def test_unused_grant_is_listed(write: Write) -> None:
    template = write(add_statement({"Effect": "Allow", "Action": "dynamodb:Scan", "Resource": "*"}))
    output = io.StringIO()

    async with run_system(Options(template=template, functions="process"), Progress(io.StringIO())) as system:
        before = system.unused_grants()
        await show_everything(system, Progress(output))
        after = system.unused_grants()

    assert [grant.split()[1] for grant in before] == [
        "dynamodb:DeleteItem",
        "dynamodb:PutItem",
        "dynamodb:Scan",
        "execute-api:ManageConnections",
    ]
    assert after == ["websocket: dynamodb:Scan on *"]
    assert re.search(r"grants never used .* websocket: dynamodb:Scan on \*$", output.getvalue(), re.MULTILINE)
