"""`python -m local`: the system of the synthesized template on this machine."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from botocore.exceptions import EndpointConnectionError

from local.aws import Users, client
from local.demo import demo, password
from local.launch import ROOT
from local.progress import Progress, StepFailed
from local.system import LOGS, STATE, Options, System, running

RUNNING = STATE / "up.json"  # what `token` and `connection` need to know; only its owner can read it
PORT = 4510
AWS_PORT = 4511
USER = "ada@example.com"


class NotRunning(Exception):
    """A command needs `make up` to be running."""


def main() -> int:
    arguments = parser().parse_args()
    progress = Progress()
    try:
        match arguments.command:
            case "token":
                print(token())
            case "connection":
                print(connection())
            case "demo":
                log_to_file("demo")
                stopped = asyncio.run(until_stopped(demo(options(arguments), progress)))
                return 130 if stopped else 0
            case _:
                log_to_terminal()
                asyncio.run(until_stopped(up(options(arguments), progress)))
    except NotRunning as error:
        print(error, file=sys.stderr)
        return 1
    except EndpointConnectionError:
        print("what `make up` started no longer answers: start it again", file=sys.stderr)
        return 1
    except StepFailed as error:
        print(f"\n{error}\nLogs: {LOGS.relative_to(ROOT)}/", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    parser.add_argument(
        "command",
        nargs="?",
        default="up",
        choices=["up", "demo", "token", "connection"],
        help="up: run until Ctrl-C (default); demo: show everything and end; token: an ID token of the user of `up`; "
        "connection: the id of the user's newest connection",
    )
    parser.add_argument("--port", type=int, help=f"of the gateway (default: {PORT} for up, any for demo)")
    parser.add_argument(
        "--aws-port", type=int, help=f"of Cognito and DynamoDB (default: {AWS_PORT} for up, any for demo)"
    )
    parser.add_argument(
        "--functions",
        choices=["auto", "process", "image"],
        default="auto",
        help="run the built images or plain processes (default: images if there is an engine that can build them)",
    )
    parser.add_argument("--environments", type=int, default=2, help="execution environments a function (default: 2)")
    parser.add_argument("--dynamodb-url", help="use this DynamoDB, e.g. DynamoDB Local at http://127.0.0.1:8000")
    return parser


def options(arguments: argparse.Namespace) -> Options:
    port, aws_port = (0, 0) if arguments.command == "demo" else (PORT, AWS_PORT)
    return Options(
        port=port if arguments.port is None else arguments.port,
        aws_port=aws_port if arguments.aws_port is None else arguments.aws_port,
        functions=arguments.functions,
        environments=arguments.environments,
        dynamodb_url=arguments.dynamodb_url,
    )


async def up(options: Options, progress: Progress) -> None:
    async with running(options, progress) as system:
        secret = password()
        await asyncio.to_thread(system.users.add, USER, secret)
        RUNNING.touch(mode=0o600)
        RUNNING.write_text(json.dumps(facts(system, secret)))
        try:
            progress.say(USAGE.format(system=system))
            await asyncio.Event().wait()
        finally:
            RUNNING.unlink(missing_ok=True)
            progress.say("\nClosing connections and ending the functions …")


def facts(system: System, secret: str) -> dict[str, str]:
    return {
        "app_client_id": system.app_client_id,
        "cognito_url": system.aws.url,
        "dynamodb_url": system.aws.dynamodb_url,
        "password": secret,
        "table_name": system.table_name,
        "user_pool_id": system.user_pool_id,
    }


def known_facts() -> dict[str, str]:
    if not RUNNING.exists():
        raise NotRunning("nothing is running: start `make up` in another terminal")
    return dict(json.loads(RUNNING.read_text()))


def token() -> str:
    known = known_facts()
    users = Users(known["cognito_url"], known["user_pool_id"], known["app_client_id"])
    return users.id_token(USER, known["password"])


def connection() -> str:
    """The id of the connection that will last longest."""
    known = known_facts()
    found = client("dynamodb", known["dynamodb_url"]).scan(TableName=known["table_name"])["Items"]
    if not found:
        raise NotRunning("nobody is connected: start the wscat line first")
    newest = max(found, key=lambda row: int(row["removedAt"]["N"]))
    return str(newest["connectionId"]["S"])


USAGE = """
WebSocket   {system.websocket_url}?idToken=…
Token       make -s token                (an ID token of ada@example.com, by SRP)
AWS         {system.aws.url}        (Cognito and DynamoDB for boto3 and the AWS CLI, keys test and test)

In another terminal, from here:
  npx wscat -c "{system.websocket_url}?idToken=$(make -s token)"
  curl -i -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' \\
    -H 'Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==' {system.callback_url}
  curl --aws-sigv4 aws:amz:us-east-1:execute-api --user test:test --data 'hello from outside' \\
    "{system.callback_url}/@connections/$(make -s connection)"

Ctrl-C ends everything."""


async def until_stopped(work: Coroutine[Any, Any, None]) -> bool:
    """Runs the work; SIGINT and SIGTERM let it end in order, however often they come. Returns whether they did."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, lambda: task.cancelling() or task.cancel())
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return task.cancelled()


def log_to_terminal() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("  %(name)s | %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    quieten()


def log_to_file(name: str) -> None:
    LOGS.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=LOGS / f"{name}.log", filemode="w", level=logging.INFO, format="%(asctime)s %(name)s %(message)s"
    )
    quieten()


def quieten() -> None:
    for name in ("botocore", "local.websocket"):
        logging.getLogger(name).setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
