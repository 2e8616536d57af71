"""`python -m local` as users run it, and every command that it prints for them to paste."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE

import pytest
import urllib3
from websockets.sync.client import connect

from local.aws.clients import client
from tests.fixtures import ROOT
from tests.fixtures.make_up import (
    ENVIRONMENT,
    START_SECONDS,
    STOP_SECONDS,
    Checkout,
    Up,
    build_arguments,
    run_up,
    wait_until,
)
from tests.fixtures.network import find_free_port
from tests.fixtures.processes import find_running
from tests.fixtures.templates import build_resources, function
from tests.fixtures.terminal import Terminal
from tests.fixtures.tokens import read_claims

# All settings that clients must know. The tests share these contexts, because other ones would cost another synthesis.
RESTRICTED = [
    "credential=subprotocol",
    "requiredGroup=staff",
    "allowedOrigins=https://a.example.com,http://b.example.com",
    "maxConnectionsPerUser=1",
]
DEMO_STEPS = [
    "stack unchanged",  # or synthesized
    "local AWS started",
    "resources created",
    "gateway listening",
    "functions started",
    "Ada signs in by SRP",
    "table before",
    "Ada connects with it",
    "table while connected",
    "message echoed",
    "push to all of Ada's",
    "no token",
    "token of another app client",
    "Bob's token runs out",
    "expired token",
    "Ada disconnects",
    "table after",
    "grants never used",
]


# `up` and its output


@pytest.fixture(scope="module")
def up(new_checkout: Callable[[], Checkout]) -> Iterator[Up]:
    with run_up(new_checkout()) as running:
        yield running


@pytest.fixture(scope="module")
def token(up: Up) -> str:
    """Return an ID token of Ada, by `make token`."""
    return up.run("token").stdout.strip()


def test_up_says_where_it_listens_the_page_first(up: Up) -> None:
    usage = up.printed.partition("page listening")[2].partition("\n\n")[2]

    assert re.match(
        r"Page        http://localhost:\d+        \(sign up there; the code from the mail appears below\)\n"
        r"Inspector   http://localhost:\d+        \(what happens to each connection, live\)\n"
        rf"WebSocket   ws://127\.0\.0\.1:{up.port}/prod\?idToken=…\n",
        usage,
    )


def test_inspector_answers_where_it_is_said_to_be(up: Up) -> None:
    answer = urllib3.request("GET", f"{up.find_address('Inspector')}/api/connections")

    assert (answer.status, answer.json().keys()) == (200, {"connections", "total"})


def test_page_has_the_settings_of_the_system(up: Up) -> None:
    known = up.state

    page, settings = (urllib3.request("GET", f"{up.find_address('Page')}{path}") for path in ("/", "/config.json"))

    assert page.data.decode() == "<!doctype html><title>Stand-in</title>"
    assert (
        settings.json().items()
        >= {
            "userPoolId": known["user_pool_id"],
            "appClientId": known["app_client_id"],
            "userPoolEndpoint": f"{known['cognito_url']}/",
            "webSocketEndpoint": f"ws://127.0.0.1:{up.port}/prod",
        }.items()
    )


def test_mail_of_a_sign_up_is_printed(up: Up) -> None:
    known = up.state

    client("cognito-idp", up.find_address("AWS")).sign_up(
        ClientId=known["app_client_id"], Username="jane@example.com", Password="correct-Horse-battery-1"
    )

    assert re.search(r"\n\nMail to jane@example\.com: .+\n  .*\b\d{6}\b.*\n\n", up.command.wait_for("Mail to "))


def test_up_keeps_the_users_password_from_others(up: Up) -> None:
    assert up.checkout.state(up.port).stat().st_mode & 0o077 == 0
    assert up.state["users"]["ada@example.com"] not in up.printed


def test_printed_token_line_prints_a_token_of_the_user_and_ignores_email_in_the_environment(up: Up) -> None:
    line = re.search(r"^Token +(.+?) {2,}", up.printed, re.MULTILINE)
    assert line is not None

    pasted = up.checkout.run_shell(f"export EMAIL=me@example.com; {line[1]}")

    assert (pasted.returncode, pasted.stderr) == (0, "")
    assert read_claims(pasted.stdout)["email"] == "ada@example.com"


def test_printed_handshake_line_shows_the_refusal(up: Up) -> None:
    pasted = up.checkout.run_shell(up.find_command("curl -i"))

    assert pasted.returncode == 0
    assert pasted.stdout.startswith("HTTP/1.1 401 Unauthorized")


def test_connection_without_a_client_is_a_clear_error(up: Up) -> None:
    asked = up.run("connection")

    assert (asked.returncode, asked.stdout) == (1, "")
    assert asked.stderr == "no connection is open: run the wscat line first\n"


def test_printed_wscat_and_post_lines_work_together(up: Up) -> None:
    use_lines(up)


def use_lines(up: Up) -> None:
    """Paste the wscat line into a terminal and the post line into another."""
    with Terminal(up.find_command("npx wscat"), up.checkout.root, ENVIRONMENT) as wscat:
        wscat.expect("Connected")
        wscat.type("hello\n")
        wscat.expect('{"message": "hello"}')

        posted = up.checkout.run_shell(up.find_command("make -s post"))

        assert (posted.returncode, posted.stderr) == (0, "")
        assert posted.stdout.startswith("posted 18 bytes to connection ")
        wscat.expect("hello from outside")


def test_no_other_line_is_printed_to_paste(up: Up) -> None:
    block = up.printed.partition("In another terminal, from here:\n")[2].partition("\n\n")[0]
    lines = [line.split()[:2] for line in re.split(r"(?<!\\)\n", block)]

    assert lines == [["npx", "wscat"], ["curl", "-i"], ["make", "-s"]]


def test_second_up_on_the_same_port_says_that_the_first_runs_and_leaves_it_alone(up: Up) -> None:
    before = up.state

    second = up.checkout.run("up", *build_arguments(up.port))

    assert (second.returncode, second.stdout) == (1, "")
    runs = f"`make up` already runs on port {up.port}, with pid {up.command.process.pid}: end it, or start another "
    assert second.stderr.startswith(runs)
    assert len(second.stderr.splitlines()) == 1
    assert (up.state, up.command.process.poll()) == (before, None)


def test_user_who_was_added_by_make_gets_tokens_by_make(up: Up) -> None:
    flags = f"LOCAL_FLAGS=--port={up.port}"

    added = up.checkout.run_shell(f"make -s user EMAIL=bob@example.com GROUP='admins editors' {flags}")
    token = up.checkout.run_shell(f"make -s token EMAIL=bob@example.com {flags}")

    assert (added.returncode, added.stderr) == (0, "")
    assert added.stdout == (
        "bob@example.com can sign in, in the groups admins and editors (new: admins and editors). "
        f"Token: make -s token EMAIL=bob@example.com {flags}\n"
    )
    assert read_claims(token.stdout)["email"] == "bob@example.com"
    assert {*read_claims(token.stdout)["cognito:groups"]} == {"admins", "editors"}


def test_message_of_make_is_posted_as_it_was_written(up: Up, token: str) -> None:
    with connect(f"ws://127.0.0.1:{up.port}/prod?idToken={token}", proxy=None) as peer:
        for text in ('it\'s $HOME `id` $(id) "x" #1', "--help", "-- \\n"):
            posted = up.checkout.run_shell(f"make -s post LOCAL_FLAGS=--port={up.port} MESSAGE={shlex.quote(text)}")

            assert (posted.returncode, posted.stderr) == (0, "")
            assert peer.recv(STOP_SECONDS) == text


def test_interrupt_ends_up_in_order(up: Up, token: str) -> None:
    """The last test with this `up`."""
    processes = up.command.processes
    with connect(f"ws://127.0.0.1:{up.port}/prod?idToken={token}") as peer:
        status = up.command.interrupt()
        with pytest.raises(Exception, match="1001"):
            peer.recv(STOP_SECONDS)

    assert status == 0
    assert len(processes) >= 3  # the local AWS and two functions
    assert find_running(processes) == []
    assert not up.checkout.state(up.port).exists()
    assert "Traceback" not in up.command.output.read_text()


# `up` with other contexts


def test_printed_lines_have_the_subprotocols_origin_and_group_of_the_context(checkout: Checkout) -> None:
    with run_up(checkout, *(f"--context={each}" for each in RESTRICTED)) as up:
        assert f"WebSocket   ws://127.0.0.1:{up.port}/prod\n" in up.printed
        use_lines(up)
        assert up.checkout.run_shell(up.find_command("curl -i")).stdout.startswith("HTTP/1.1 401 Unauthorized")


# Ends and failures


def test_up_whose_terminal_is_closed_ends_in_order(checkout: Checkout) -> None:
    port = find_free_port()
    command = shlex.join([".venv/bin/python", "-m", "local", "up", *build_arguments(port)])
    with Terminal(f"exec {command}", checkout.root, ENVIRONMENT) as terminal:
        terminal.expect("Ctrl-C ends everything.", START_SECONDS)
        state = json.loads(checkout.state(port).read_text())

        terminal.close()

    assert len(state["children"]) >= 3  # the local AWS and two functions
    assert find_running([state["pid"], *map(int, state["children"])]) == []
    assert not checkout.state(port).exists()


def test_work_is_cancelled_if_only_the_shell_gets_sighup(tmp_path: Path) -> None:
    """If make leads the session, only make gets SIGHUP, and waits for `up`."""
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, pathlib\n"
        "from local.__main__ import run_until_stopped\n"
        "async def work():\n"
        "    await asyncio.sleep(0)  # meanwhile the task that watches the terminal starts\n"
        "    print('started', flush=True)\n"
        "    try:\n"
        "        await asyncio.sleep(600)\n"
        "    finally:\n"
        "        pathlib.Path(__file__).with_name('ended').touch()\n"
        "run_until_stopped(work())\n"
    )
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    with Terminal(f"trap : HUP; {shlex.join([sys.executable, str(program)])}; :", tmp_path, environment) as terminal:
        terminal.expect("started\r\n", START_SECONDS)

        terminal.close()

    assert (tmp_path / "ended").exists()


def test_up_that_was_killed_is_noticed_and_does_not_block_the_next(checkout: Checkout) -> None:
    """The next one is not used, so it prints all grants at its end."""
    port, aws_port = find_free_port(), find_free_port()
    arguments = ("up", *build_arguments(port), f"--aws-port={aws_port}")
    killed = checkout.start(*arguments)
    killed.wait_for("Ctrl-C ends everything.")
    killed.process.kill()
    killed.process.wait()

    asked = checkout.run("token", f"--port={port}")
    next_one = checkout.start(*arguments)

    assert asked.returncode == 1
    was = f"`make up` does not run on port {port} any more, pid {killed.process.pid} was killed"
    assert asked.stderr == f"{was}: start `make up` in another terminal\n"
    next_one.wait_for("Ctrl-C ends everything.")
    assert checkout.run("token", f"--port={port}").returncode == 0
    assert next_one.interrupt() == 0
    told = next_one.output.read_text().partition("Grants that no function has used:\n")[2].splitlines()
    assert [line.partition(" on arn:")[0] for line in told] == [
        "  websocket: dynamodb:DeleteItem",
        "  websocket: dynamodb:PutItem",
        "  websocket: execute-api:ManageConnections",
    ]


@pytest.mark.parametrize("module", ["local.paths", "botocore", "local.system"])
def test_interrupt_of_the_imports_prints_no_traceback(checkout: Checkout, module: str) -> None:
    command = [".venv/bin/python", "-X", "importtime", "-m", "local", "up", *build_arguments(find_free_port())]
    with subprocess.Popen(command, cwd=checkout.root, env=ENVIRONMENT, stderr=PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:
            if line.endswith(f" {module}\n"):
                break
        process.send_signal(signal.SIGINT)

        assert "Traceback" not in process.stderr.read()

    assert process.returncode == -signal.SIGINT


def test_other_template_gets_the_instructions_that_apply(checkout: Checkout) -> None:
    """The template has no user pool and no table, and its authorizer has other identity sources."""
    for target in ("authorizer", "websocket"):
        (checkout.root / "images" / target / f"{target}.py").write_text("def handler(event, context): pass\n")
    template = checkout.root / "Chat.template.json"
    resources = build_resources(Guard=function("authorizer"), Rooms=function("websocket"))
    template.write_text(json.dumps({"Resources": resources}))

    with run_up(checkout, f"--template={template}") as up:
        commands = {command: up.run(*command.split()).stderr for command in ("token", "connection", "post hello")}

    url = f"ws://127.0.0.1:{up.port}/beta?room=…"
    usage = up.printed.partition("\n\nInspector   ")[2].partition("\n")[2]
    assert usage.startswith(f"WebSocket   {url}\n\nIn another terminal, from here:\n")
    assert f"  npx wscat -c '{url}' -H 'Auth: …'\n" in up.printed
    assert f"  make -s post MESSAGE='hello from outside' CONNECTION=… LOCAL_FLAGS=--port={up.port}\n" in up.printed
    no_table = "the template has no table, so the open connections are unknown: pass a connection id, `make post CONNECTION=…`\n"
    assert commands == {
        "token": "the template has no user pool (AWS::Cognito::UserPool), so there are no users\n",
        "connection": no_table,
        "post hello": no_table,
    }


def test_stack_that_cannot_be_synthesized_says_why(checkout: Checkout) -> None:
    """No process is left, because none is started before the synthesis."""
    (checkout.root / "infra" / "app.py").write_text("raise SystemExit('no such policy')\n")
    command = checkout.start("up", *build_arguments(find_free_port()))

    status = command.process.wait(START_SECONDS)

    assert status == 1
    assert "no such policy" in command.output.read_text()
    assert "Traceback" not in command.output.read_text()


# demo


@pytest.mark.parametrize(
    "contexts",
    [[], RESTRICTED],
    ids=["as in cdk.json", "subprotocol, group, origin and one connection"],
)
def test_demo_shows_every_step_and_leaves_nothing(checkout: Checkout, contexts: list[str]) -> None:
    command = checkout.start("demo", "--functions", "process", *(f"--context={each}" for each in contexts))
    command.wait_for("table before")
    processes = command.processes

    status = command.process.wait(START_SECONDS)

    printed = command.output.read_text()
    assert status == 0, printed
    steps = re.findall(r"^  ✓ (.{30})", printed, re.MULTILINE)
    assert [step.strip().replace("synthesized", "unchanged") for step in steps] == DEMO_STEPS
    assert ("1 connection found" in printed) == ("maxConnectionsPerUser=1" in contexts)
    assert "Everything works" in printed
    assert len(processes) >= 3  # the local AWS and two functions
    assert find_running(processes) == []


def test_demo_that_is_ended_during_its_start_leaves_nothing_and_says_so(checkout: Checkout) -> None:
    command = checkout.start("demo", "--functions", "process")
    wait_until(lambda: "ministack" in str(command.processes), command.output.read_text)
    processes = command.processes

    command.process.terminate()

    assert command.process.wait(STOP_SECONDS) == 130
    assert find_running(processes) == []
    assert "Traceback" not in command.output.read_text()


def test_wrong_argument_waits_for_no_slow_import() -> None:
    """Slow imports would delay the error by a second."""
    program = "import sys; from local import __main__; print({'boto3', 'aiohttp', 'aws_cdk'} & {*sys.modules})"

    imported = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert imported.stdout == "set()\n"
