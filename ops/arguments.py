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
    """Says what is wrong in one line, without a page of usage before it."""

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^argument ([^:]+): ", r"\1 ", message).replace("expected one argument", "needs a value")
        message = re.sub(r"^the following arguments are required: (.+)", r"\1 is missing", message)
        self.exit(2, f"{message}; try `{self.prog} --help`\n")


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Return the command with its arguments; exit with status 2 and one line about those that are wrong."""
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
        "--by", metavar="NAME", type=parse_name, default=find_own_name(), help="for the log (default: %(default)s)"
    )
    for each in (push, kick):
        each.add_argument("--dry-run", action="store_true", help="only count")
    arguments = parser.parse_args(join_connection(words))
    check_options(commands.choices[arguments.command], arguments)
    return arguments


def join_connection(words: Sequence[str]) -> list[str]:
    """Return `--connection ID` as one word: one id in 64 begins with a hyphen, as an option does."""
    for at, (option, value) in enumerate(pairwise(words)):
        if option == "--connection" and re.fullmatch("-.{15}", value):
            return [*words[:at], f"{option}={value}", *words[at + 2 :]]
    return [*words]


def build_common_options() -> Parser:
    common = Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON")
    common.add_argument(
        "--threads",
        type=partial(parse_number, highest=256),
        default=32,
        metavar="NUMBER",
        help="calls at the same time (default: %(default)s)",
    )
    where = common.add_argument_group("where", "One of --local, --stack, or --table and --callback-url.")
    where.add_argument("--local", action="store_true", help="the running `make up`")
    where.add_argument("--port", type=partial(parse_number, highest=65535), help="of that `make up` (default: 4510)")
    where.add_argument("--stack", metavar="NAME", help="a deployed stack; the rest is read from its outputs")
    where.add_argument("--table", metavar="NAME", help="the output ConnectionTableName")
    where.add_argument("--callback-url", metavar="URL", help="the output CallbackUrl")
    where.add_argument("--user-pool", metavar="ID", help="the output UserPoolId")
    where.add_argument("--region", help="default: that of the environment or profile")
    where.add_argument("--profile", help="of AWS's configuration files")
    return common


def check_options(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Exit with one line if the options do not fit together."""
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
    return re.sub("[^ -~]", "", text).strip()[:MAX_NAME_CHARACTERS]


def find_own_name() -> str:
    """Return the operating system's name of the user."""
    try:
        return clean_name(getpass.getuser()) or f"uid {os.getuid()}"
    except (KeyError, OSError):  # a container may run as a user without a name
        return f"uid {os.getuid()}"
