"""Parses the command line of `python -m local`. An error is reported in one line, before slow imports."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from infra.context import read_context
from local import paths
from local.cloudformation.synthesis import read_cdk_json
from local.errors import TemplateError
from local.state import PORT

if TYPE_CHECKING:
    from local.system import Options

IMAGES = paths.ROOT / "images"
AWS_PORT = 4511
PAGE_PORT = 3000
INSPECTOR_PORT = 3001
COMMANDS = {
    "up": "run until Ctrl-C; this is the default command",
    "demo": "show everything and end",
    "token": "print an ID token of a user of up",
    "user": "add a user to up",
    "connection": "print the id of the newest connection of up",
    "post": "post a message to a connection of up",
}


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^argument ([^:]+): ", r"\1 ", message)
        message = message.replace("expected one argument", "needs a value")
        message = re.sub(r"^the following arguments are required: (.+)", r"\1 is missing", message)
        self.exit(2, f"{message}; try `{self.prog} --help`\n")


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Return the command with its arguments. Exit with a one-line error if an argument is wrong."""
    parser = Parser(
        prog="python -m local",
        description="Run the system of the synthesized template on this machine.",
        allow_abbrev=False,
    )
    if not words or (words[0].startswith("-") and words[0] not in {"-h", "--help"}):
        words = ["up", *words]
    if words[0] not in {*COMMANDS, "-h", "--help"}:
        parser.error(f"there is no command {words[0]!r}, there are {', '.join(COMMANDS)}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND", parser_class=Parser)
    parsers = {name: commands.add_parser(name, help=text, description=text, allow_abbrev=False)
               for name, text in COMMANDS.items()}  # fmt: skip
    for name in ("up", "demo"):
        add_options(parsers[name], name)
    for name in COMMANDS.keys() - {"up", "demo"}:
        parsers[name].add_argument(
            "--port", type=parse_port, default=PORT, help=f"the port of up's gateway (default: {PORT})"
        )
    parsers["token"].add_argument(
        "email", nargs="?", help="the user's address (default: that of the user that up has added)"
    )
    parsers["user"].add_argument("email", help="the new user's address")
    parsers["user"].add_argument("--group", action="append", default=[], help="a group for the user; may be repeated")
    parsers["post"].add_argument("message")
    parsers["post"].add_argument("--connection", metavar="ID", help="the connection to post to (default: the newest)")
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        parsers[arguments.command].error(f"{unknown[0]} is unknown")
    if arguments.command in {"up", "demo"}:
        check_ports(parsers[arguments.command], arguments)
        if arguments.images != IMAGES and arguments.functions == "auto":
            arguments.functions = "process"
    return arguments


def check_ports(parser: Parser, arguments: argparse.Namespace) -> None:
    """Exit with a one-line error if two parts would listen on the same port."""
    flags: dict[int, str] = {}
    for flag, port in (
        ("--port", arguments.port),
        ("--aws-port", arguments.aws_port),
        ("--page-port", arguments.page_port),
        ("--inspector-port", arguments.inspector_port),
    ):
        if port and port in flags:
            parser.error(f"{flags[port]} and {flag} must differ, both are {port}")
        flags[port] = flag


def add_options(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the options of a command that runs the system."""
    port, aws_port = (PORT, AWS_PORT) if command == "up" else (0, 0)
    shown = "%(default)s" if command == "up" else "any"
    parser.add_argument("--port", type=parse_port, default=port, help=f"the gateway's port (default: {shown})")
    parser.add_argument(
        "--aws-port", type=parse_port, default=aws_port, help=f"the port of Cognito and DynamoDB (default: {shown})"
    )
    parser.add_argument(
        "--page-port",
        type=parse_port,
        default=PAGE_PORT if command == "up" else None,
        help="the page's port (default: %(default)s)"
        if command == "up"
        else "the page's port; without it no page is served",
    )
    if command == "up":
        add_inspection_options(parser)
    else:
        parser.set_defaults(inspector_port=None)
    parser.add_argument(
        "--template", type=parse_file, help="a synthesized template (default: synthesize the stack of cdk.json)"
    )
    parser.add_argument(
        "--context",
        type=parse_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a context value for the synthesis, as for `npx cdk deploy --context`; may be repeated",
    )
    parser.add_argument(
        "--images",
        type=parse_folder,
        default=IMAGES,
        help="the functions' sources, a folder for each bake target (default: images). Other sources run as processes; "
        "with --functions image, images are built from the sources that docker-bake.hcl names",
    )
    parser.add_argument(
        "--functions",
        type=parse_choice("auto", "process", "image"),
        default="auto",
        metavar="{auto,process,image}",
        help="run built images or plain processes (default: images if a Docker engine can build them)",
    )
    parser.add_argument(
        "--environments",
        type=parse_positive(int),
        default=2,
        metavar="NUMBER",
        help="the maximum of execution environments for each function (default: %(default)s)",
    )
    parser.add_argument(
        "--dynamodb-url",
        type=parse_url,
        metavar="URL",
        help="use this DynamoDB, e.g. DynamoDB Local at http://127.0.0.1:8000",
    )
    parser.add_argument(
        "--iam",
        type=parse_choice("enforce", "off"),
        default="enforce",
        metavar="{enforce,off}",
        help="refuse what the functions' roles do not allow (default), or let everything pass",
    )
    parser.add_argument(
        "--in-turn",
        action="store_true",
        help="handle a connection's messages one after the other, which AWS does not promise",
    )
    limits = parser.add_argument_group("time", "The limits are those of AWS. Lower them to see sooner what happens.")
    add_seconds = partial(limits.add_argument, type=parse_positive(float), metavar="SECONDS")
    limits.add_argument(
        "--clock-speed",
        type=parse_positive(float),
        metavar="FACTOR",
        default=1.0,
        help="how many times faster the idle limit, the connection limit and items' time to live pass; "
        "code does not run faster",
    )
    add_seconds("--idle-limit", default=600.0, help="end a connection after this time without messages (default: 600)")
    add_seconds(
        "--connection-limit", default=7200.0, help="end a connection after this time in any case (default: 7200)"
    )
    add_seconds(
        "--function-timeout", help="the timeout of every function (default: the template's; an answer may take 29 s)"
    )


def add_inspection_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--inspector-port", type=parse_port, default=INSPECTOR_PORT, help="the inspector's port (default: %(default)s)"
    )
    parser.add_argument(
        "--log",
        type=parse_choice("short", "full", "json"),
        default="short",
        metavar="{short,full,json}",
        help="print one line for each log record (default), complete tracebacks, or each record as JSON on standard output",
    )


def parse_port(text: str) -> int:
    with suppress(ValueError):
        if 0 <= (port := int(text)) <= 65535:
            return port
    raise argparse.ArgumentTypeError(f"must be a port number from 0 (any that is free) to 65535, it is {text!r}")


def parse_positive(number: Callable[[str], float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        with suppress(ValueError):
            if 0 < (value := number(text)) < math.inf:
                return value
        kind = "a whole number" if number is int else "a number"
        raise argparse.ArgumentTypeError(f"must be {kind} above 0, it is {text!r}")

    return parse


def parse_choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"must be {', '.join(choices[:-1])} or {choices[-1]}, it is {text!r}")
        return text

    return parse


def parse_setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, it is {text!r}")
    return name, value


def parse_file(text: str) -> Path:
    if not text or not Path(text).exists():
        raise argparse.ArgumentTypeError(f"must be a file, {text!r} does not exist")
    return Path(text)


def parse_folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"must be a folder, {text!r} is not")
    return Path(text).resolve()


def parse_url(text: str) -> str:
    with suppress(ValueError):
        parts = urlsplit(text)
        if parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0:
            return text
    raise argparse.ArgumentTypeError(f"must be a URL such as http://127.0.0.1:8000, it is {text!r}")


def check_context(arguments: argparse.Namespace) -> None:
    """Exit with a one-line error if the stack would refuse the context, because the synthesis takes seconds."""
    context = dict(arguments.context)
    if arguments.template:
        if context:
            raise SystemExit("--context has no effect with --template, which is synthesized already: use one of them")
        return
    try:
        read_context(read_cdk_json(paths.ROOT)["context"] | context)
    except TemplateError as error:
        raise SystemExit(str(error)) from error


def build_options(arguments: argparse.Namespace) -> Options:
    from local.apigateway.limits import Limits  # noqa: PLC0415 - takes a second
    from local.system import Options  # noqa: PLC0415

    return Options(
        template=arguments.template,
        context=dict(arguments.context),
        images=arguments.images,
        port=arguments.port,
        aws_port=arguments.aws_port,
        page_port=arguments.page_port,
        inspector_port=arguments.inspector_port,
        functions=arguments.functions,
        environments=arguments.environments,
        dynamodb_url=arguments.dynamodb_url,
        iam=arguments.iam == "enforce",
        limits=Limits(idle_seconds=arguments.idle_limit, connection_seconds=arguments.connection_limit),
        clock_speed=arguments.clock_speed,
        function_timeout=arguments.function_timeout,
        in_turn=arguments.in_turn,
    )
