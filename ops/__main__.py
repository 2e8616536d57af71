"""`python -m ops`: list connections, push a message to them, end them."""

from __future__ import annotations

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # so that Ctrl-C during the imports prints no traceback

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from ops.arguments import parse_arguments
from ops.connections import MAX_MESSAGE_BYTES, Connection, Counts, check_message, connections_of, kick, push
from ops.deployment import Deployment, open_session
from ops.errors import OpsError, explain
from ops.users import disable, find_user

ROW = "{:<17} {:<37} {:<21} {}"
SHOWN_REASONS = 5


class Progress:
    """Counts what was done so far, and shows it if standard error is a terminal.

    Attributes:
        counts: what was done so far.
    """

    def __init__(self) -> None:
        self.counts = Counts()
        self._is_shown = sys.stderr.isatty()
        self._started = time.monotonic()

    def report(self, counts: Counts) -> None:
        """Keep the counts and show them."""
        self.counts = counts
        if self._is_shown:
            done = counts.outcomes.total()
            rate = done / (time.monotonic() - self._started)
            print(f"\r\033[K{done:,} done, {rate:,.0f} a second", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the progress from the terminal."""
        if self._is_shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status. An error is printed in one line, with what was done before it."""
    arguments = parse_arguments(sys.argv[1:] if words is None else words)
    progress = Progress()
    try:
        status = run(arguments, progress)
        sys.stdout.flush()
    except BrokenPipeError:  # `… | head`
        discard_output()
        return 1
    except OSError as error:  # for example, the disk is full
        discard_output()
        progress.clear()
        print(explain(error), file=sys.stderr)
        status = 1
    except (OpsError, ClientError, BotoCoreError) as error:
        progress.clear()
        print(explain(error), file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        progress.clear()
        status = 130
    else:
        return status
    if progress.counts.outcomes:
        would = "would be: " if arguments.dry_run else ""
        print(f"before that: {would}{format_counts(progress.counts, ())}", file=sys.stderr)
    return status


def discard_output() -> None:
    """Send standard output to the null device, with the text that Python still buffers."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(arguments: argparse.Namespace, progress: Progress) -> int:
    """Read the message, open the deployment and carry out the command; return the exit status."""
    message = read_message(arguments.message) if arguments.command == "push" else b""
    with closing(open_deployment(arguments)) as deployment:
        return operate(deployment, arguments, message, progress)


def operate(deployment: Deployment, arguments: argparse.Namespace, message: bytes, progress: Progress) -> int:
    """Carry out the command and print its result; return the exit status."""
    disables = arguments.command == "kick" and arguments.disable
    user = None
    if arguments.user and (deployment.user_pool_id or "@" in arguments.user or disables):
        user = find_user(deployment, arguments.user)
    user_id = user.id if user else arguments.user
    if arguments.command == "who":
        print_connections(connections_of(deployment, user_id), as_json=arguments.json)
        return 0
    options = {"dry_run": arguments.dry_run, "report": progress.report}
    facts: dict[str, object] = {"dryRun": True} if arguments.dry_run else {}
    if arguments.command == "push":
        counts = push(deployment, message, user_id, **options)
        outcomes = ["delivered", "gone", "expired", "failed"]
    else:
        if user and disables and not arguments.dry_run:
            until = facts["tokensWorkUntil"] = format_time(disable(deployment, user))
            if not arguments.json:
                print(
                    f"{arguments.user} is disabled; an ID token that the user already has opens connections until {until}"
                )
        counts = kick(deployment, arguments.by, user_id=user_id, connection_id=arguments.connection, **options)
        outcomes = ["kicked", "gone", "failed"]
    progress.clear()
    if arguments.json:
        print(json.dumps({**{each: counts.outcomes[each] for each in outcomes}, "reasons": counts.reasons, **facts}))
    else:
        print(("would be: " if arguments.dry_run else "") + format_counts(counts, outcomes))
        for reason, number in counts.reasons.most_common(SHOWN_REASONS):
            print(f"{number:,} failed: {reason}", file=sys.stderr)
    return 1 if counts.outcomes["failed"] else 0


def open_deployment(arguments: argparse.Namespace) -> Deployment:
    """Return the deployment that the options select: the local run, a stack, or a table and a callback URL."""
    if arguments.local:
        return Deployment.of_local_run(arguments.port, threads=arguments.threads)
    if arguments.stack:
        return Deployment.of_stack(
            arguments.stack, region=arguments.region, profile=arguments.profile, threads=arguments.threads
        )
    session = open_session(arguments.profile)
    return Deployment(
        region=arguments.region or session.get_config_variable("region"),
        table_name=arguments.table,
        callback_url=arguments.callback_url,
        user_pool_id=arguments.user_pool,
        session=session,
        threads=arguments.threads,
    )


def read_message(argument: str | None) -> bytes:
    """Return the message of the command line, otherwise that of standard input, byte for byte.

    Raises:
        OpsError: `@connections` would refuse it.
    """
    if argument is None:
        message = sys.stdin.buffer.read(MAX_MESSAGE_BYTES + 1)
    else:
        message = argument.encode(errors="surrogateescape")
    check_message(message)
    return message


def print_connections(connections: Iterator[Connection], *, as_json: bool) -> None:
    """Print each connection as soon as it is read."""
    number = -1
    for number, each in enumerate(connections):
        if as_json:
            times = {"connectedAt": each.connected_at, "removedAt": each.removed_at}
            print(json.dumps({"connectionId": each.id, "userId": each.user_id, **times}))
            continue
        if number == 0:
            print(ROW.format("CONNECTION", "USER", "CONNECTED SINCE", "EXPIRES IN"))
        since = format_time(each.connected_at) if each.connected_at else "unknown"
        print(ROW.format(each.id, each.user_id, since, format_time_left(each)))
    if number < 0:
        print("no connections", file=sys.stderr)


def format_counts(counts: Counts, names: Sequence[str]) -> str:
    return ", ".join(f"{name} {counts.outcomes[name]:,}" for name in names or sorted(counts.outcomes))


def format_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_time_left(connection: Connection) -> str:
    if connection.has_expired:
        return "expired"
    minutes, seconds = divmod(int(connection.removed_at - time.time()), 60)
    return f"{minutes} min {seconds:02} s" if connection.removed_at else "unknown"


if __name__ == "__main__":
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # None: the caller closed the stream
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - stays open until the process ends
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # the terminal's encoding may lack a character
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
