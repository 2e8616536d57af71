"""`python -m ops --local` finds the running `make up`, and has the permissions of the stack's operator policy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from local import paths, state, up
from local.aws.account import Account
from local.aws.endpoint import AwsEndpoint
from local.aws.iam import Iam
from local.cloudformation.template import Template
from local.state import State
from ops.__main__ import main
from tests.fixtures.gateway import receive
from tests.fixtures.ops import TABLE, LocalDeployment, StartLocalDeployment

PORT = 4510
API = "arn:aws:execute-api:us-east-1:000000000000:localapi00/prod"
ARN = f"arn:aws:dynamodb:us-east-1:000000000000:table/{TABLE}"
PUSH = {
    "Statement": [
        {"Effect": "Allow", "Action": "dynamodb:Query", "Resource": f"{ARN}/index/userIdIndex"},
        {"Effect": "Allow", "Action": "dynamodb:DeleteItem", "Resource": ARN},
        {"Effect": "Allow", "Action": "execute-api:ManageConnections", "Resource": f"{API}/POST/@connections/*"},
    ]
}
CONDITION = "OperatorPolicy12345678: statement 1: Condition cannot be evaluated locally; leave it out of the local run"


@pytest.fixture(autouse=True)
def own_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths, "STATE", tmp_path)


def template(**properties: object) -> Template:
    policy = {"Type": "AWS::IAM::ManagedPolicy", "Properties": properties}
    return Template("Chat", {"OperatorPolicy12345678": policy})


def save_state(local_deployment: LocalDeployment, **facts: Any) -> None:
    found = {
        "callback_url": f"http://127.0.0.1:{local_deployment.gateway.port}/prod",
        "region": "us-east-1",
        "cognito_url": local_deployment.database.url,
        "dynamodb_url": local_deployment.database.url,
        "table_name": TABLE,
    }
    state.save(PORT, State.of_this_process({"--port": PORT}, ready=True, **found | facts))


async def run(*words: str) -> int:
    return await asyncio.to_thread(main, [words[0], "--local", *words[1:]])


async def test_make_up_is_found_by_its_state_file(
    local_deployment: LocalDeployment, capsys: pytest.CaptureFixture[str]
) -> None:
    peer, _ = await local_deployment.connect()
    save_state(local_deployment)

    assert await run("push", "--user", local_deployment.user_id, "news") == 0

    assert await receive(peer) == "news"
    assert capsys.readouterr().out == "delivered 1, gone 0, expired 0, failed 0\n"


async def test_missing_make_up_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("who", "--port", "4600") == 1

    assert capsys.readouterr().err == "`make up` does not run on port 4600: start `make up` in another terminal\n"


async def test_template_without_a_table_is_an_error(
    local_deployment: LocalDeployment, capsys: pytest.CaptureFixture[str]
) -> None:
    save_state(local_deployment, table_name=None)

    assert await run("who") == 1

    assert capsys.readouterr().err == "the template of `make up` has no table, so nobody knows who is connected\n"


@pytest.fixture
async def restricted_deployment(start_local_deployment: StartLocalDeployment) -> AsyncIterator[LocalDeployment]:
    """Start a local deployment, and write its state file with a session that has the operator policy PUSH."""
    iam = Iam()
    local_deployment: LocalDeployment = await start_local_deployment(iam=iam)
    endpoint = AwsEndpoint(
        iam, {"dynamodb": local_deployment.database.url, "cognito-idp": local_deployment.database.url}, Account()
    )
    system: Any = SimpleNamespace(
        iam=iam,
        template=template(PolicyDocument=PUSH),
        stack=SimpleNamespace(account=Account()),
        endpoint_url=await endpoint.start(),
    )
    save_state(local_deployment, **up.open_operator_session(system, SimpleNamespace()))  # type: ignore[arg-type]
    yield local_deployment
    await endpoint.stop()


async def test_call_in_the_operator_policy_is_allowed(
    restricted_deployment: LocalDeployment, capsys: pytest.CaptureFixture[str]
) -> None:
    peer, _ = await restricted_deployment.connect()

    assert await run("push", "--user", restricted_deployment.user_id, "news") == 0

    assert await receive(peer) == "news"


@pytest.mark.parametrize(
    ("command", "denied"),
    [("push --all news", "Scan was denied: "), ("kick --connection G0neOFvHcCIhwAA=", "UpdateItem was denied: ")],
)
async def test_call_outside_the_operator_policy_is_denied(
    restricted_deployment: LocalDeployment, capsys: pytest.CaptureFixture[str], command: str, denied: str
) -> None:
    assert await run(*command.split()) == 1

    line = capsys.readouterr().err
    assert line.startswith(f"{denied}User: arn:aws:iam::000000000000:user/operator is not authorized")
    assert line.endswith("your role needs the policy in the stack's output OperatorPolicyArn\n")


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        (Template("Chat", {}), []),
        (
            template(PolicyDocument={"Statement": [{**PUSH["Statement"][0], "Condition": {}}]}),
            [f"The operator's policy is not enforced: {CONDITION}"],
        ),
    ],
    ids=["no policy", "a condition"],
)
def test_everything_is_allowed_without_a_policy_that_can_be_evaluated(resources: Template, said: list[str]) -> None:
    printed: list[str] = []
    system: Any = SimpleNamespace(template=resources)

    assert up.open_operator_session(system, SimpleNamespace(say=printed.append)) == {}  # type: ignore[arg-type]
    assert printed == said
