"""`python -m ops`: its output and its exit status. Tests of signals and streams start a process."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from subprocess import PIPE
from typing import Any

import pytest

from tests.fixtures import ROOT
from tests.fixtures.gateway import receive, wait_until_closed
from tests.fixtures.network import Answer, LoopbackServer
from tests.fixtures.ops import GONE, LONG_AGO, TABLE, LocalDeployment, run_ops

EMAIL = 'o\'hara+"quoted"@example.com'


@pytest.fixture
def user_pool(local_deployment: LocalDeployment) -> Iterator[str]:
    """Create a user pool with one user, who gets this test's connections."""
    cognito = local_deployment.database.client("cognito-idp")
    user_pool_id: str = cognito.create_user_pool(PoolName="ops")["UserPool"]["Id"]
    created = cognito.admin_create_user(
        UserPoolId=user_pool_id,
        Username="ada",
        UserAttributes=[{"Name": "email", "Value": "ada@example.com"}],
        MessageAction="SUPPRESS",
    )
    local_deployment.user_id = next(each["Value"] for each in created["User"]["Attributes"] if each["Name"] == "sub")
    yield user_pool_id
    cognito.delete_user_pool(UserPoolId=user_pool_id)


async def test_who_prints_aligned_columns(local_deployment: LocalDeployment) -> None:
    _, connection_id = await local_deployment.connect(seconds=125)
    await local_deployment.store_row(GONE, seconds=LONG_AGO, age=None)

    ended = await local_deployment.run_ops("who", "--user", local_deployment.user_id)

    header, *rows = sorted(ended.stdout.splitlines(), key=lambda line: not line.startswith("CONNECTION "))
    columns = [header.index(name) for name in ("CONNECTION", "USER", "CONNECTED SINCE", "EXPIRES IN")]
    cells = {row.split()[0]: [row[start:].split("  ")[0].strip() for start in columns] for row in rows}
    since = cells[connection_id].pop(2)
    assert abs((datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds() - 60) < 50
    assert re.fullmatch(r"[12] min \d\d s", cells[connection_id].pop())
    assert cells == {
        connection_id: [connection_id, local_deployment.user_id],
        GONE: [GONE, local_deployment.user_id, "unknown", "expired"],
    }
    assert (ended.stderr, ended.returncode) == ("", 0)


async def test_who_prints_json_lines(local_deployment: LocalDeployment) -> None:
    _, connection_id = await local_deployment.connect()

    ended = await local_deployment.run_ops("who", "--user", local_deployment.user_id, "--json")

    row = await local_deployment.get_row(connection_id)
    assert row is not None
    assert json.loads(ended.stdout) == {
        "connectionId": connection_id,
        "userId": local_deployment.user_id,
        "connectedAt": int(row["connectedAt"]["N"]),
        "removedAt": int(row["removedAt"]["N"]),
    }


async def test_who_without_connections_says_so(local_deployment: LocalDeployment) -> None:
    ended = await local_deployment.run_ops("who", "--user", local_deployment.user_id)

    assert (ended.stdout, ended.stderr, ended.returncode) == ("", "no connections\n", 0)


async def test_push_prints_counts(local_deployment: LocalDeployment) -> None:
    peer, _ = await local_deployment.connect()
    await local_deployment.connect(seconds=LONG_AGO)
    await local_deployment.store_row(GONE)

    ended = await local_deployment.run_ops("push", "--user", local_deployment.user_id, "news")

    assert (ended.stdout, ended.stderr) == ("delivered 1, gone 1, expired 1, failed 0\n", "")
    assert ended.returncode == 0
    assert await receive(peer) == "news"


async def test_push_that_did_not_reach_a_connection_has_status_1(local_deployment: LocalDeployment) -> None:
    await local_deployment.store_row(GONE, age=0)

    ended = await local_deployment.run_ops("push", "--user", local_deployment.user_id, "news")

    assert ended.stdout == "delivered 0, gone 0, expired 0, failed 1\n"
    assert ended.stderr == "1 failed: 410, but younger than 30 s: it may still be opening, so run this again\n"
    assert ended.returncode == 1


async def test_push_prints_json(local_deployment: LocalDeployment) -> None:
    await local_deployment.connect()

    ended = await local_deployment.run_ops("push", "--user", local_deployment.user_id, "news", "--json")

    assert json.loads(ended.stdout) == {"delivered": 1, "gone": 0, "expired": 0, "failed": 0, "reasons": {}}


async def test_push_reads_the_message_from_standard_input(local_deployment: LocalDeployment) -> None:
    peer, _ = await local_deployment.connect()

    await local_deployment.run_ops("push", "--all", stdin="from a pipe: é\n")

    assert await receive(peer) == "from a pipe: é\n"


async def test_dry_run_prints_what_would_be_done(local_deployment: LocalDeployment) -> None:
    await local_deployment.connect()

    pushed = await local_deployment.run_ops("push", "--dry-run", "--user", local_deployment.user_id, "news")
    kicked = await local_deployment.run_ops("kick", "--dry-run", "--user", local_deployment.user_id, "--json")

    assert pushed.stdout == "would be: delivered 1, gone 0, expired 0, failed 0\n"
    assert json.loads(kicked.stdout) == {"kicked": 1, "gone": 0, "failed": 0, "reasons": {}, "dryRun": True}


async def test_user_is_found_by_email_and_by_sub(local_deployment: LocalDeployment, user_pool: str) -> None:
    peer, _ = await local_deployment.connect()

    for user in ("ada@example.com", local_deployment.user_id):
        ended = await local_deployment.run_ops("push", "--user", user, "--user-pool", user_pool, "news")
        assert ended.stdout == "delivered 1, gone 0, expired 0, failed 0\n", ended.stderr

    assert [await receive(peer) for _ in range(2)] == ["news"] * 2


@pytest.mark.parametrize("user", ["nobody@example.com", EMAIL, "7c879a84-2108-4d34-8151-1e6fa00faafc"])
async def test_unknown_user_is_named(local_deployment: LocalDeployment, user_pool: str, user: str) -> None:
    ended = await local_deployment.run_ops("push", "--user", user, "--user-pool", user_pool, "news")

    attribute = "email" if "@" in user else "sub"
    assert ended.stderr.startswith(f"user pool {user_pool} has no user whose {attribute} is {user}: ")
    assert (ended.stderr.count("\n"), ended.stdout, ended.returncode) == (1, "", 1)


async def test_quotes_in_an_email_are_escaped(local_deployment: LocalDeployment) -> None:
    with LoopbackServer(
        Answer(body=[b'{"Users": []}'], headers={"Content-Type": "application/x-amz-json-1.1"})
    ) as fake:
        variables = {"AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER": fake.url}
        await local_deployment.run_ops("who", "--user", EMAIL, "--user-pool", "us-east-1_Example01", **variables)

    (asked,) = fake.requests
    assert json.loads(asked.body)["Filter"] == 'email = "o\'hara+\\"quoted\\"@example.com"'


async def test_email_of_two_users_is_refused(local_deployment: LocalDeployment) -> None:
    users = [{"Username": sub, "Attributes": [{"Name": "sub", "Value": sub}]} for sub in ("1a", "2b")]
    body = [json.dumps({"Users": users}).encode()]
    with LoopbackServer(Answer(body=body, headers={"Content-Type": "application/x-amz-json-1.1"})) as fake:
        variables = {"AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER": fake.url}
        words = ("kick", "--user", "ada@example.com", "--user-pool", "us-east-1_Example01")
        ended = await local_deployment.run_ops(*words, **variables)

    assert ended.stderr == "2 users have the e-mail address ada@example.com: pass one of 1a, 2b\n"
    assert ended.returncode == 1


async def test_email_without_a_user_pool_is_refused(local_deployment: LocalDeployment) -> None:
    ended = await local_deployment.run_ops("push", "--user", "ada@example.com", "news")

    assert ended.stderr == "user ada@example.com cannot be looked up without a user pool: pass --user-pool\n"
    assert ended.returncode == 1


async def test_kick_of_one_connection_writes_the_operator_to_the_row(local_deployment: LocalDeployment) -> None:
    peer, connection_id = await local_deployment.connect()

    ended = await local_deployment.run_ops("kick", "--connection", connection_id, "--by", "Ada\tLovelace é")

    assert ended.stdout == "kicked 1, gone 0, failed 0\n"
    assert await wait_until_closed(peer) == (1000, "Connection Closed Normally")
    row = await local_deployment.get_row(connection_id)
    assert row is not None
    assert row["endedBy"] == {"S": "AdaLovelace"}


async def test_kick_disables_the_user_and_prints_how_long_tokens_work(
    local_deployment: LocalDeployment, user_pool: str
) -> None:
    await local_deployment.connect()

    ended = await local_deployment.run_ops("kick", "--user", "ada@example.com", "--disable", "--user-pool", user_pool)

    disabled, kicked = ended.stdout.splitlines()
    until = disabled.removeprefix(
        "ada@example.com is disabled; an ID token that the user already has opens connections until "
    )
    assert kicked == "kicked 1, gone 0, failed 0"
    assert 0 < (datetime.fromisoformat(until) - datetime.now(UTC)).total_seconds() <= 3600
    found = local_deployment.database.client("cognito-idp").admin_get_user(UserPoolId=user_pool, Username="ada")
    assert found["Enabled"] is False


WHERE = ["--table", TABLE, "--callback-url", "https://example.com/prod", "--region", "us-east-1"]


async def test_too_large_message_is_refused_before_the_first_call() -> None:
    nowhere = {"AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:1"}

    ended = await asyncio.to_thread(run_ops, "push", "--all", *WHERE, stdin="x" * 200_000, **nowhere)

    assert ended.stderr == "the message has more than 131,072 bytes, which is the limit of @connections: shorten it\n"
    assert ended.returncode == 1


async def test_table_without_connection_ids_is_an_error(local_deployment: LocalDeployment) -> None:
    page = b'{"Items": [{"id": {"S": "x"}}]}'
    with LoopbackServer(Answer(body=[page], headers={"Content-Type": "application/x-amz-json-1.0"})) as fake:
        ended = await local_deployment.run_ops("who", AWS_ENDPOINT_URL_DYNAMODB=fake.url)

    why = "a row of the table has no 'connectionId': is its name the output ConnectionTableName?\n"
    assert (ended.stderr, ended.stdout, ended.returncode) == (why, "", 1)


async def test_missing_credentials_are_one_line(local_deployment: LocalDeployment) -> None:
    ended = await local_deployment.run_ops("push", "--all", "news", AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")

    assert ended.stderr == "there are no AWS credentials: set AWS_PROFILE or AWS_ACCESS_KEY_ID, or pass --profile\n"
    assert ended.returncode == 1


def test_unknown_profile_is_one_line() -> None:
    ended = run_ops("who", *WHERE, "--profile", "prod")

    assert (ended.stderr, ended.returncode) == ("The config profile (prod) could not be found\n", 1)


def test_missing_region_is_one_line() -> None:
    ended = run_ops("who", *WHERE[:4])

    assert ended.stderr.startswith("no region is set: pass --region")
    assert (ended.stderr.count("\n"), ended.returncode) == (1, 1)


def test_region_of_the_environment_is_used() -> None:
    with LoopbackServer(Answer(404)) as fake:
        ended = run_ops("who", *WHERE[:4], AWS_REGION="eu-central-1", AWS_ENDPOINT_URL_DYNAMODB=fake.url)

    assert "region" not in ended.stderr
    assert "/eu-central-1/dynamodb/" in fake.requests[0].headers["Authorization"]


def build_command(local_deployment: LocalDeployment, *words: str) -> list[str]:
    return [sys.executable, "-m", "ops", *words, *local_deployment.options]


async def run_process(
    local_deployment: LocalDeployment, command: list[str], *, stdout: int | None = None, stderr: int
) -> subprocess.CompletedProcess[bytes]:
    """Run a command of ops as a process, for tests in which its streams or signals matter."""
    variables = os.environ | local_deployment.variables
    return await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=variables, stdout=stdout, stderr=stderr, check=False
    )


async def test_closed_standard_input_and_output_are_no_error(local_deployment: LocalDeployment) -> None:
    peer, _ = await local_deployment.connect()
    command = shlex.join(build_command(local_deployment, "push", "--user", local_deployment.user_id, "news"))

    ended = await run_process(local_deployment, ["sh", "-c", f"exec {command} <&- >&-"], stderr=PIPE)

    assert (ended.stderr, ended.returncode, await receive(peer)) == (b"", 0, "news")


async def test_output_that_cannot_be_written_is_one_line(local_deployment: LocalDeployment) -> None:
    await local_deployment.connect()
    command = build_command(local_deployment, "push", "--user", local_deployment.user_id, "news")

    full = os.open("/dev/full", os.O_WRONLY)

    ended = await run_process(local_deployment, command, stdout=full, stderr=PIPE)
    os.close(full)

    assert (ended.stderr, ended.returncode) == (b"cannot go on: No space left on device\nbefore that: delivered 1\n", 1)


def serve_cloudformation(body: str, status: int = 200) -> LoopbackServer:
    return LoopbackServer(Answer(status, [body.encode()], {"Content-Type": "text/xml"}))


def build_describe_stacks(outputs: dict[str, str]) -> str:
    members = "".join(
        f"<member><OutputKey>{name}</OutputKey><OutputValue>{value}</OutputValue></member>"
        for name, value in outputs.items()
    )
    return (
        "<DescribeStacksResponse><DescribeStacksResult><Stacks><member><StackName>Chat</StackName>"
        f"<Outputs>{members}</Outputs></member></Stacks></DescribeStacksResult></DescribeStacksResponse>"
    )


async def test_deployment_is_found_by_the_outputs_of_its_stack(
    local_deployment: LocalDeployment, user_pool: str
) -> None:
    peer, _ = await local_deployment.connect()
    outputs = dict(zip(("ConnectionTableName", "CallbackUrl", "Region"), local_deployment.options[1::2], strict=True))
    with serve_cloudformation(build_describe_stacks({**outputs, "UserPoolId": user_pool})) as fake:
        variables = {"AWS_ENDPOINT_URL_CLOUDFORMATION": fake.url, "AWS_ENDPOINT_URL": local_deployment.database.url}
        words = ("push", "--stack", "Chat", "--region", "us-east-1", "--user", "ada@example.com", "news")
        ended = await asyncio.to_thread(run_ops, *words, **variables)

    assert (ended.stdout, ended.stderr) == ("delivered 1, gone 0, expired 0, failed 0\n", "")
    assert await receive(peer) == "news"


DENIAL = "User: ada is not authorized to perform: cloudformation:DescribeStacks"
ERROR = "<ErrorResponse><Error><Code>{}</Code><Message>{}</Message></Error></ErrorResponse>"


@pytest.mark.parametrize(
    ("status", "body", "line"),
    [
        (
            400,
            ERROR.format("ValidationError", "Stack with id Chat does not exist"),
            "there is no stack Chat in us-east-1: check the name, --region and --profile\n",
        ),
        (
            200,
            build_describe_stacks({"Region": "us-east-1"}),
            "stack Chat in us-east-1 has no output ConnectionTableName: is it a stack of this project, fully deployed?\n",
        ),
        (
            403,
            ERROR.format("AccessDenied", DENIAL),
            f"DescribeStacks was denied: {DENIAL}; your role needs the policy in the stack's output OperatorPolicyArn\n",
        ),
        (
            403,
            ERROR.format("ExpiredToken", "The security token included in the request is expired"),
            "DescribeStacks failed: the AWS credentials have expired; sign in again, for example by `aws sso login`\n",
        ),
    ],
    ids=["no such stack", "another stack", "denied", "expired"],
)
def test_stack_that_cannot_be_read_is_one_line(status: int, body: str, line: str) -> None:
    with serve_cloudformation(body, status) as fake:
        ended = run_ops("who", "--stack", "Chat", "--region", "us-east-1", AWS_ENDPOINT_URL_CLOUDFORMATION=fake.url)

    assert (ended.stderr, ended.stdout, ended.returncode) == (line, "", 1)


async def test_error_is_followed_by_the_counts_so_far(local_deployment: LocalDeployment) -> None:
    rows = [{"connectionId": {"S": GONE}, "userId": {"S": "ada"}, "removedAt": {"N": "9999999999"}}]
    page = {"Items": rows, "LastEvaluatedKey": {"connectionId": {"S": GONE}}}

    class Dynamo(LoopbackServer):
        def respond(self, request: Any) -> Answer:
            target = request.headers["X-Amz-Target"].partition(".")[2]
            first = not any(b"ExclusiveStartKey" in each.body for each in self.requests)
            if target == "DeleteItem" or first:
                body = {} if target == "DeleteItem" else page
                return Answer(200, [json.dumps(body).encode()], {"Content-Type": "application/x-amz-json-1.0"})
            return Answer(400, [b'{"__type": "AccessDeniedException", "Message": "no more"}'])

    with Dynamo(Answer()) as fake:
        ended = await local_deployment.run_ops(
            "push", "--all", "news", "--threads", "1", AWS_ENDPOINT_URL_DYNAMODB=fake.url
        )

    denied, before = ended.stderr.splitlines()
    assert denied.startswith("Scan was denied: no more; ")
    assert before == "before that: gone 1"
    assert (ended.stdout, ended.returncode) == ("", 1)


async def test_closed_pipe_ends_quietly(local_deployment: LocalDeployment) -> None:
    await local_deployment.store_row(GONE)
    theirs, ours = os.pipe()
    os.close(theirs)
    command = build_command(local_deployment, "who")

    ended = await run_process(local_deployment, command, stdout=ours, stderr=PIPE)
    os.close(ours)

    assert (ended.stderr, ended.returncode) == (b"", 1)


async def test_progress_is_shown_on_a_terminal(local_deployment: LocalDeployment) -> None:
    for _ in range(10):
        await local_deployment.connect()
    local_deployment.throttle(rate=20)
    ours, theirs = pty.openpty()
    command = build_command(local_deployment, "push", "--user", local_deployment.user_id, "news")

    ended = await run_process(local_deployment, command, stdout=PIPE, stderr=theirs)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)

    assert re.match(r"\r\x1b\[K\d+ done, \d+ a second", shown)
    assert shown.endswith("\r\x1b[K")
    assert ended.stdout == b"delivered 10, gone 0, expired 0, failed 0\n"


async def test_ctrl_c_prints_the_counts_so_far(local_deployment: LocalDeployment) -> None:
    peers = [peer for peer, _ in [await local_deployment.connect() for _ in range(20)]]
    local_deployment.throttle(rate=2)
    command = build_command(local_deployment, "push", "--user", local_deployment.user_id, "--threads", "1", "news")
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=os.environ | local_deployment.variables, stdout=PIPE, stderr=PIPE
    )
    receiving = [asyncio.create_task(receive(peer)) for peer in peers]
    await asyncio.wait(receiving, return_when=asyncio.FIRST_COMPLETED)
    process.send_signal(signal.SIGINT)
    printed, told = await process.communicate()
    for each in receiving:
        each.cancel()

    assert (printed, process.returncode) == (b"", 130)
    assert re.fullmatch(rb"before that: delivered \d+\n", told)
