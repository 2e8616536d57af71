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
    """Keeps the logs apart from those of a `make up` that runs beside the tests."""
    monkeypatch.setattr(paths, "LOGS", tmp_path / "logs")


@pytest.fixture
def write(synthesized: Document, tmp_path: Path) -> Write:
    """Writes the template with these changes."""

    def written(*changes: Change) -> Path:
        document = deepcopy(synthesized)
        for change in changes:
            change(document)
        path = tmp_path / "WebSocketCognito.template.json"
        path.write_text(json.dumps(document))
        return path

    return written


def statements(document: Document) -> list[dict[str, Any]]:
    """Return the statements of the websocket function's role."""
    (policy,) = (
        resource["Properties"]["PolicyDocument"]
        for name, resource in document["Resources"].items()
        if resource["Type"] == "AWS::IAM::Policy" and name.startswith("WebSocketRole")
    )
    found: list[dict[str, Any]] = policy["Statement"]
    return found


def without(action: str) -> Change:
    """Return a change that removes an action from the role."""

    def change(document: Document) -> None:
        (statement,) = (each for each in statements(document) if action in each["Action"])
        statement["Action"] = [each for each in actions(statement) if each != action]
        if not statement["Action"]:
            statements(document).remove(statement)

    return change


def actions(statement: dict[str, Any]) -> list[str]:
    action = statement["Action"]
    return action if isinstance(action, list) else [action]


def with_statement(statement: dict[str, Any]) -> Change:
    return lambda document: statements(document).append(statement)


def without_permission(source: str) -> Change:
    """Return a change that removes API Gateway's permission for the route or authorizer whose ARN contains this."""

    def change(document: Document) -> None:
        (name,) = (
            name
            for name, resource in document["Resources"].items()
            if resource["Type"] == "AWS::Lambda::Permission" and source in json.dumps(resource["Properties"])
        )
        del document["Resources"][name]

    return change


def with_permission(name: str, function_name: str, source_arn: str) -> Change:
    properties = {"FunctionName": function_name, "SourceArn": source_arn}
    permission = {"Action": "lambda:InvokeFunction", "Principal": "apigateway.amazonaws.com", **properties}
    resource = {"Type": "AWS::Lambda::Permission", "Properties": permission}
    return lambda document: document["Resources"].update({name: resource})


LACKING = {
    "row": without("dynamodb:PutItem"),
    "echo": without("execute-api:ManageConnections"),
    "$connect": without_permission("/*$connect"),
    "authorizer": without_permission("/authorizers/"),
}


async def shown(template: Path, **options: Any) -> str:
    """Return what the demo prints."""
    output = io.StringIO()
    await demo(Options(template=template, functions="process", **options), Progress(output))
    return output.getvalue()


async def complaint(template: Path) -> str:
    """Return the error with which the demo fails."""
    with pytest.raises(StepFailed) as failed:
        await shown(template)
    return str(failed.value)


def advised_statements(text: str) -> Iterator[dict[str, Any]]:
    for advised in re.findall(r"^websocket may not .* the statement ({.*})$", text, re.MULTILINE):
        yield json.loads(advised)


def advised_permissions(text: str) -> list[tuple[str, str]]:
    """Return function and SourceArn of each permission that is advised."""
    pattern = r"^API Gateway may not invoke (\S+): add an AWS::Lambda::Permission with SourceArn (\S+)$"
    return re.findall(pattern, text, re.MULTILINE)


@pytest.mark.parametrize(
    ("lacking", "step", "action", "resource"),
    [
        ("row", "Ada connects with it: .* 502", "dynamodb:PutItem", TABLE),
        ("echo", "message echoed: ", "execute-api:ManageConnections", rf"{EXECUTE}/prod/POST/@connections/\*"),
    ],
    ids=["row", "echo"],
)
async def test_missing_grant_of_a_function_is_advised_as_a_statement(
    write: Write, lacking: str, step: str, action: str, resource: str
) -> None:
    text = await complaint(write(LACKING[lacking]))

    (statement,) = advised_statements(text)
    assert re.match(step, text)
    assert re.fullmatch(resource, statement.pop("Resource"))
    assert statement == {"Effect": "Allow", "Action": action}


@pytest.mark.parametrize(
    ("lacking", "function", "source"),
    [
        ("$connect", "WebSocketCognito-WebSocketFunction", rf"{EXECUTE}/prod/\$connect"),
        (
            "authorizer",
            "WebSocketCognito-AuthorizerFunction",
            rf"{EXECUTE}/authorizers/WebSocketCognito-ApiAuthorizer\w+",
        ),
    ],
    ids=["$connect", "authorizer"],
)
async def test_missing_permission_of_the_gateway_is_advised_as_a_resource(
    write: Write, lacking: str, function: str, source: str
) -> None:
    text = await complaint(write(LACKING[lacking]))

    ((invoked, source_arn),) = advised_permissions(text)
    assert re.match("Ada connects with it: .* 500", text)
    assert invoked.startswith(function)
    assert re.fullmatch(source, source_arn)


async def test_following_the_advice_leads_to_a_stack_that_works(write: Write) -> None:
    changes = [*LACKING.values()]

    steps = len(LACKING) + 1  # a statement on `@connections` is advised for POST, then for DELETE
    for _ in range(steps):
        text = await complaint(write(*changes))
        changes += map(with_statement, advised_statements(text))
        changes += (with_permission(f"Advised{len(changes)}", *each) for each in advised_permissions(text))

    assert len(changes) == len(LACKING) + steps  # one at a time
    assert "Everything works" in await shown(write(*changes))


async def test_nothing_is_missing_if_iam_is_off(write: Write) -> None:
    assert "Everything works" in await shown(write(*LACKING.values()), iam=False)


async def test_unused_grant_is_listed(write: Write) -> None:
    template = write(with_statement({"Effect": "Allow", "Action": "dynamodb:Scan", "Resource": "*"}))
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
