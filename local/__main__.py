"""`python -m local`: runs the system of a synthesized template on this machine."""

from __future__ import annotations

# ruff: noqa: PLC0415 - imports that take a second are made only when they are needed
import gc
import signal

if __name__ == "__main__":
    gc.disable()  # the imports leave no garbage; without the collector they take a seventh less time
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback if Ctrl-C is pressed during the imports

import argparse
import asyncio
import os
import sys
import traceback
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

from local import paths
from local.arguments import build_options, check_context, parse_arguments
from local.errors import CommandError, LaunchError, TemplateError, explain
from local.progress import Progress

TERMINAL_SECONDS = 1.0  # between checks of the terminal


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(sys.argv[1:] if words is None else words)
    if arguments.command in {"up", "demo"}:
        check_context(arguments)
    try:
        return run(arguments)
    except (CommandError, LaunchError, TemplateError, OSError) as error:
        print(explain(error), file=sys.stderr)
    except Exception as error:  # noqa: BLE001 - the user sees one line, and the traceback is in a file
        write_traceback(error)
        print(f"\n{explain(error)}\nLogs: {paths.LOGS.relative_to(paths.ROOT)}/", file=sys.stderr)
    return 1


def run(arguments: argparse.Namespace) -> int:
    """Carry out a command; return the exit status."""
    if arguments.command not in {"up", "demo"}:
        from local.commands import run_command

        print(run_command(arguments))
        return 0
    from local.logs import log_to_file, log_to_terminal

    if arguments.command == "demo":
        from local.demo import demo

        progress = Progress()
        log_to_file("demo")
        return 130 if run_until_stopped(demo(build_options(arguments), progress)) else 0
    from local.journal import Journal
    from local.up import up

    progress = Progress(sys.stderr if arguments.log == "json" else sys.stdout)
    journal = Journal()
    log_to_terminal(progress, journal, arguments.log)
    run_until_stopped(up(build_options(arguments), progress, journal))
    return 0


def run_until_stopped(work: Coroutine[Any, Any, None]) -> bool:
    """Run until the work ends, or until SIGINT, SIGTERM or SIGHUP cancels it. Repeated signals do not disturb its end.

    Returns:
        Whether a signal stopped it.
    """
    gc.enable()
    stopped = asyncio.run(wait_until_stopped(work))
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # asyncio has restored Python's own handler
    return stopped


async def wait_until_stopped(work: Coroutine[Any, Any, None]) -> bool:
    task = asyncio.ensure_future(work)
    numbers = [signal.SIGINT, signal.SIGTERM]
    watcher = None
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it
        numbers.append(signal.SIGHUP)
        watcher = asyncio.create_task(cancel_with_terminal(task))  # the event loop keeps only a weak reference
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, lambda: task.cancelling() or task.cancel())
    await asyncio.wait([task])
    if watcher:
        watcher.cancel()
    if not task.cancelled():
        task.result()
    return task.cancelled()


async def cancel_with_terminal(task: asyncio.Task[None]) -> None:
    """Cancel a task when its terminal is closed.

    SIGHUP is not enough: if make leads the session, only make gets it, and then waits for this process.
    """
    with suppress(OSError):  # there is no terminal
        if os.tcgetpgrp(1) == os.getpgrp():
            while os.isatty(1):
                await asyncio.sleep(TERMINAL_SECONDS)
            task.cancelling() or task.cancel()


def write_traceback(error: Exception) -> None:
    """Write the traceback of an error to a file."""
    with suppress(OSError):
        (paths.LOGS / "error.log").write_text("".join(traceback.format_exception(error)))


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # the terminal may not have every character
    sys.exit(main())
