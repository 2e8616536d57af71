"""`python -m local`: the system of the synthesized template on this machine."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from botocore.exceptions import EndpointConnectionError

from local.apigateway.limits import Limits
from local.aws import mail
from local.aws.clients import client
from local.aws.users import Users
from local.demo import demo, password
from local.example import opening
from local.page import PAGE_CONFIG
from local.paths import LOGS, ROOT, STATE
from local.progress import Progress, StepFailed
from local.system import Options, System, cancel, run_system

PORT = 4510
AWS_PORT = 4511
PAGE_PORT = 3000
USER = "ada@example.com"


class NotRunning(Exception):
    """A command needs `make up` to be running."""


def main() -> int:
    arguments = parser().parse_args()
    progress = Progress()
    try:
        match arguments.command:
            case "token":
                print(token(known_facts(arguments.port)))
            case "connection":
                print(connection(known_facts(arguments.port)))
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
    parser.add_argument(
        "--port", type=int, help=f"of the gateway; token and connection: of which up (default: {PORT}, any for demo)"
    )
    parser.add_argument(
        "--aws-port", type=int, help=f"of Cognito and DynamoDB (default: {AWS_PORT} for up, any for demo)"
    )
    parser.add_argument("--page-port", type=int, help=f"of the page (default: {PAGE_PORT}; demo serves none)")
    parser.add_argument("--template", type=Path, help="a synthesized template (default: synthesizes cdk.json's stack)")
    parser.add_argument(
        "--context",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the synthesis, as `npx cdk deploy --context` takes it; may be repeated",
    )
    parser.add_argument(
        "--images",
        type=Path,
        default=Options.images,
        help="the functions' sources, a folder for each bake target (default: images)",
    )
    parser.add_argument(
        "--functions",
        choices=["auto", "process", "image"],
        default="auto",
        help="run the built images or plain processes (default: images if there is an engine that can build them)",
    )
    parser.add_argument(
        "--environments", type=positive(int), default=2, help="execution environments a function (default: 2)"
    )
    parser.add_argument("--dynamodb-url", help="use this DynamoDB, e.g. DynamoDB Local at http://127.0.0.1:8000")
    parser.add_argument(
        "--iam",
        choices=["enforce", "off"],
        default="enforce",
        help="refuse what the functions' roles do not allow (default), or let everything pass",
    )
    parser.add_argument(
        "--in-turn", action="store_true", help="a connection's messages one after the other, which AWS does not promise"
    )
    limits = parser.add_argument_group("time", "Limits as on AWS, unless you want to see them sooner.")
    limits.add_argument(
        "--clock-speed",
        type=positive(float),
        default=1.0,
        metavar="FACTOR",
        help="the idle limit, the connection limit and items' time to live pass so many times faster; "
        "functions take the time that they take",
    )
    limits.add_argument(
        "--idle-limit",
        type=positive(float),
        default=Limits.idle_seconds,
        metavar="SECONDS",
        help="a connection's end without messages (default: 600)",
    )
    limits.add_argument(
        "--connection-limit",
        type=positive(float),
        default=Limits.connection_seconds,
        metavar="SECONDS",
        help="a connection's end in any case (default: 7200)",
    )
    limits.add_argument(
        "--function-timeout",
        type=positive(float),
        metavar="SECONDS",
        help="of every function (default: the template's; 29 s at most for an answer)",
    )
    return parser


def positive(number: type[float]) -> Callable[[str], float]:
    def positive_number(text: str) -> float:
        value = number(text)
        if not 0 < value < math.inf:
            raise ValueError
        return value

    return positive_number


def setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError
    return name, value


def options(arguments: argparse.Namespace) -> Options:
    port, aws_port, page_port = (0, 0, None) if arguments.command == "demo" else (PORT, AWS_PORT, PAGE_PORT)
    return Options(
        template=arguments.template,
        context=dict(arguments.context),
        images=arguments.images.resolve(),
        port=port if arguments.port is None else arguments.port,
        aws_port=aws_port if arguments.aws_port is None else arguments.aws_port,
        page_port=page_port if arguments.page_port is None else arguments.page_port,
        functions=arguments.functions,
        environments=arguments.environments,
        dynamodb_url=arguments.dynamodb_url,
        iam=arguments.iam == "enforce",
        limits=Limits(idle_seconds=arguments.idle_limit, connection_seconds=arguments.connection_limit),
        clock_speed=arguments.clock_speed,
        function_timeout=arguments.function_timeout,
        in_turn=arguments.in_turn,
    )


async def up(options: Options, progress: Progress) -> None:
    async with AsyncExitStack() as stack:
        system = await stack.enter_async_context(reported(options, progress))
        secret = password()
        if system.user_pool_id:
            await asyncio.to_thread(system.users.add, USER, secret)
            mails = asyncio.create_task(mail.watch(system.aws.url, progress.say))
            stack.push_async_callback(cancel, mails)
        file = facts_file(system.port)
        file.unlink(missing_ok=True)  # of one that could not clean up, with whatever mode
        file.touch(mode=0o600)
        stack.callback(file.unlink, missing_ok=True)
        file.write_text(json.dumps(facts(system, secret)))
        progress.say(usage(system, options))
        stack.callback(progress.say, "\nClosing connections and ending the functions …")
        await asyncio.Event().wait()


@asynccontextmanager
async def reported(options: Options, progress: Progress) -> AsyncIterator[System]:
    """The running system; at its end, `$disconnect` included, it is told which grants nobody has used."""
    system = None
    try:
        async with run_system(options, progress) as system:
            yield system
    finally:
        if system and (unused := system.unused_grants()):
            progress.say("\n  ".join(("Grants that no function has used:", *unused)))


def facts_file(port: int) -> Path:
    """What `token` and `connection` need to know of the `up` on a port; only its owner can read it."""
    return STATE / f"up-{port}.json"


def facts(system: System, secret: str) -> dict[str, str | None]:
    return {
        "app_client_id": system.app_client_id,
        "cognito_url": system.aws.url,
        "dynamodb_url": system.aws.dynamodb_url,
        "password": secret,
        "table_name": system.table_name,
        "user_pool_id": system.user_pool_id,
    }


def known_facts(port: int | None) -> dict[str, str]:
    file = facts_file(port or PORT)
    if not file.exists():
        where = f" on port {port}" if port else ""
        raise NotRunning(f"nothing is running{where}: start `make up` in another terminal")
    return dict(json.loads(file.read_text()))


def token(known: dict[str, str]) -> str:
    if not known["user_pool_id"]:
        raise NotRunning("the template has no user pool, so nobody can sign in")
    users = Users(known["cognito_url"], known["user_pool_id"], known["app_client_id"])
    return users.id_token(USER, known["password"])


def connection(known: dict[str, str]) -> str:
    """The id of the connection that will last longest."""
    if not known["table_name"]:
        raise NotRunning("the template has no table, so nobody knows who is connected")
    found = client("dynamodb", known["dynamodb_url"]).scan(TableName=known["table_name"])["Items"]
    newest = max(found, key=removed_at, default=None)
    if newest is None or removed_at(newest) <= time.time():
        raise NotRunning("nobody is connected: start the wscat line first")
    return str(newest["connectionId"]["S"])


def removed_at(row: dict[str, Any]) -> int:
    return int(row["removedAt"]["N"])


def usage(system: System, options: Options) -> str:
    lines = [*page_lines(system, options), f"WebSocket   {system.websocket_url}"]
    if system.user_pool_id and system.table_name:
        flags = "" if system.port == PORT else f" LOCAL_FLAGS=--port={system.port}"
        token = f"make -s token{flags}"
        lines[-1] = USAGE.format(
            system=system,
            uri=opening(system, "…")["uri"],
            wscat=wscat(**opening(system, f"$({token})")),
            token=token,
            connection=f"make -s connection{flags}",
        )
    limits = options.limits.compressed(options.clock_speed)
    if limits != Limits():
        lines.append(f"\nConnections end after {limits.idle_seconds:g} s idle, {limits.connection_seconds:g} s in all.")
    return "\n".join(("", *lines, "\nCtrl-C ends everything."))


def page_lines(system: System, options: Options) -> Iterator[str]:
    """Say where the page is, and what keeps it from connecting."""
    if system.page_url is None or system.page_settings is None:
        if options.page_port is not None and system.user_pool_id:
            yield f"No page: the template has no output {PAGE_CONFIG}."
        return
    does = "sign up there; the code from the mail appears below"
    if not system.page_settings.get("selfSignUp"):
        does = "sign in there; mails to users appear below"
    yield f"Page        {system.page_url}        ({does})"
    origins = system.page_settings.get("allowedOrigins")
    if origins and system.page_url not in origins:
        yield f"            Its connections are refused, because allowedOrigins does not have {system.page_url}."
        yield f"            Start with --context allowedOrigins={','.join((*origins, system.page_url))}"


def wscat(uri: str, subprotocols: Sequence[str] = ()) -> str:
    """The command that opens a connection as these arguments of websockets do; a shell fills in what it holds."""
    words = ["-c", uri, *(word for name in subprotocols for word in ("-s", name))]
    return " ".join(["npx wscat", *(f'"{word}"' if "$" in word else word for word in words)])


USAGE = """\
WebSocket   {uri}
Token       {token}                (an ID token of ada@example.com, by SRP)
AWS         {system.aws.url}        (Cognito and DynamoDB for boto3 and the AWS CLI, keys test and test)

In another terminal, from here:
  {wscat}
  curl -i -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' \\
    -H 'Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==' {system.callback_url}
  curl --aws-sigv4 aws:amz:us-east-1:execute-api --user test:test --data 'hello from outside' \\
    "{system.callback_url}/@connections/$({connection})\""""


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
    logging.getLogger("botocore").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
