"""The command line of `python -m ops`."""

from __future__ import annotations

import argparse
import getpass
import os
import re
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import NoReturn

MAX_NAME_CHARACTERS = 64


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^argument ([^:]+): ", r"\1 ", message).replace("expected one argument", "needs a value")
        message = re.sub(r"^the following arguments are required: (.+)", r"\1 is missing", message)
        self.exit(2, f"{message}; try `{self.prog} --help`\n")


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Return the command with its arguments. If they are wrong, print one line and exit with status 2."""
    parser = Parser(prog="python -m ops", description="Operate a deployment or the running `make up`.")
    common = build_common_options()
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def add(name: str, text: str) -> Parser:
        return commands.add_parser(name, help=text, description=text, parents=[common], allow_abbrev=False)

    who = add("who", "list connections")
    who.add_argument("--user", metavar="SUB|E-MAIL", type=parse_text, help="only this user's (default: all)")
    push = add("push", "send a message to connections; the exit status is 1 if one of them did not get it")
    to = push.add_mutually_exclusive_group(required=True)
    to.add_argument("--user", metavar="SUB|E-MAIL", type=parse_text, help="to all connections of this user")
    to.add_argument("--all", action="store_true", help="to all connections")
    push.add_argument("message", nargs="?", help="at most 128 KB (default: standard input)")
    kick = add("kick", "end connections; the exit status is 1 if one of them may still be open")
    whom = kick.add_mutually_exclusive_group(required=True)
    whom.add_argument("--user", metavar="SUB|E-MAIL", type=parse_text, help="all connections of this user")
    whom.add_argument("--connection", metavar="ID", type=parse_text, help="one connection")
    kick.add_argument("--disable", action="store_true", help="disable the user in Cognito first")
    kick.add_argument(
        "--by",
        metavar="NAME",
        type=parse_name,
        default=find_own_name(),
        help="who ends them, for the log (default: %(default)s)",
    )
    for each in (push, kick):
        each.add_argument("--dry-run", action="store_true", help="count the connections, and change nothing")
    arguments = parser.parse_args(join_connection(words))
    check_options(commands.choices[arguments.command], arguments)
    return arguments


def join_connection(words: Sequence[str]) -> list[str]:
    """Join `--connection ID` to one word, because one id in 64 begins with a hyphen, like an option."""
    for at, (option, value) in enumerate(pairwise(words)):
        if option == "--connection" and re.fullmatch("-.{15}", value):
            return [*words[:at], f"{option}={value}", *words[at + 2 :]]
    return [*words]


def build_common_options() -> Parser:
    """Return the options that all commands have."""
    common = Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON")
    common.add_argument(
        "--threads",
        type=partial(parse_number, highest=256),
        default=32,
        metavar="NUMBER",
        help="calls at the same time (default: %(default)s)",
    )
    where = common.add_argument_group("where", "Pass --local, --stack, or --table and --callback-url.")
    where.add_argument("--local", action="store_true", help="the running `make up`")
    where.add_argument(
        "--port", type=partial(parse_number, highest=65535), help="port of that `make up` (default: 4510)"
    )
    where.add_argument("--stack", metavar="NAME", help="a deployed stack, whose outputs are read")
    where.add_argument("--table", metavar="NAME", help="the output ConnectionTableName")
    where.add_argument("--callback-url", metavar="URL", help="the output CallbackUrl")
    where.add_argument("--user-pool", metavar="ID", help="the output UserPoolId")
    where.add_argument("--region", help="region (default: from the environment or the profile)")
    where.add_argument("--profile", help="profile in AWS's configuration files")
    return common


def check_options(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Print one line and exit if the options contradict each other or lack one."""
    explicit = [name for name in ("table", "callback_url", "user_pool") if vars(arguments)[name]]
    ways = [*(["--local"] if arguments.local else []), *(["--stack"] if arguments.stack else [])]
    ways += [f"--{explicit[0].replace('_', '-')}"] if explicit else []
    if not ways:
        parser.error("--local, --stack NAME, or --table and --callback-url must say where the connections are")
    if len(ways) > 1:
        parser.error(f"{ways[0]} and {ways[1]} exclude each other")
    if explicit and not (arguments.table and arguments.callback_url):
        parser.error("--table and --callback-url belong together")
    if explicit and not re.fullmatch(r"https?://[^/\s]+(/\S*)?", arguments.callback_url):
        parser.error(f"--callback-url must be a URL that begins with https://, it is {arguments.callback_url!r}")
    if arguments.port and not arguments.local:
        parser.error("--port is for --local only")
    if arguments.local and (arguments.region or arguments.profile):
        parser.error("--region and --profile are not for --local")
    if arguments.command == "kick" and arguments.disable and not arguments.user:
        parser.error("--disable needs --user")


def parse_number(text: str, highest: int) -> int:
    if re.fullmatch("[0-9]{1,5}", text) and 1 <= int(text) <= highest:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a number from 1 to {highest}, it is {text!r}")


def parse_text(text: str) -> str:
    if text:
        return text
    raise argparse.ArgumentTypeError("must not be empty")


def parse_name(text: str) -> str:
    if cleaned := clean_name(text):
        return cleaned
    raise argparse.ArgumentTypeError("must have printable ASCII characters")


def clean_name(text: str) -> str:
    """Return the printable ASCII characters of a name, at most MAX_NAME_CHARACTERS."""
    return re.sub("[^ -~]", "", text).strip()[:MAX_NAME_CHARACTERS]


def find_own_name() -> str:
    """Return the name that the operating system has for the user, or `uid` and the number."""
    try:
        return clean_name(getpass.getuser()) or f"uid {os.getuid()}"
    except (KeyError, OSError):  # a container may run as a user without a name
        return f"uid {os.getuid()}"
