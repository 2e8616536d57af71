"""How steps are shown to the user."""

from __future__ import annotations

import errno
import io
import re
import subprocess
import sys
from subprocess import PIPE

import pytest

from local.errors import LaunchError
from local.progress import Progress, StepFailed, format_duration, make_printable
from tests.fixtures import ROOT


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_finished_step_shows_its_result() -> None:
    output = io.StringIO()

    with Progress(output).step("table before") as step:
        step.result = "empty"

    assert re.fullmatch(r"  ✓ table before {18} +\d+ ms  empty\n", output.getvalue())


def test_step_without_a_result_leaves_no_blank_at_its_end() -> None:
    output = io.StringIO()

    with Progress(output).step("table before"):
        pass

    assert re.fullmatch(r"  ✓ table before {18} +\d+ ms\n", output.getvalue())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (AssertionError("the table is not empty"), "the table is not empty"),
        (LaunchError("port 1 is taken"), "port 1 is taken"),
        (TimeoutError(), "no answer in time"),
        (OSError(errno.ENOSPC, "No space left on device", "/full/log"), "/full/log: No space left on device"),
        (ExceptionGroup("tasks", [LaunchError("port 1 is taken")]), "port 1 is taken"),
        (KeyError("name"), "KeyError: 'name'"),
        (RuntimeError(), "RuntimeError"),
    ],
    ids=repr,
)
def test_failed_step_is_named_with_the_reason(error: Exception, message: str) -> None:
    output = io.StringIO()

    with pytest.raises(StepFailed) as failed, Progress(output).step("table before"):
        raise error

    assert str(failed.value) == f"table before: {message}"
    assert failed.value.__cause__ is error
    assert re.fullmatch(r"  ✗ table before {18} +\d+ ms\n", output.getvalue())


def test_interruption_is_not_a_failure() -> None:
    output = io.StringIO()

    with pytest.raises(KeyboardInterrupt), Progress(output).step("table before"):
        raise KeyboardInterrupt

    assert output.getvalue() == ""


# On a terminal


def test_terminal_shows_the_step_in_progress_and_colours() -> None:
    output = Terminal()

    with Progress(output).step("table before"):
        in_progress = output.getvalue()

    assert in_progress == "\r\033[K  … table before"
    assert output.getvalue().removeprefix(in_progress).startswith("\r\033[K  \033[32m✓\033[0m table before")


def test_text_that_is_printed_during_a_step_is_above_it() -> None:
    output = Terminal()
    progress = Progress(output)

    with progress.step("table before"):
        progress.say("something else")

    assert "\r\033[Ksomething else\n  … table before\r\033[K" in output.getvalue()


def test_mail_is_bold_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, file, plain = Terminal(), io.StringIO(), Terminal()

    Progress(terminal).highlight("Mail")
    Progress(file).highlight("Mail")
    monkeypatch.setenv("NO_COLOR", "1")
    Progress(plain).highlight("Mail")

    assert terminal.getvalue() == "\r\033[K\n\033[1mMail\033[0m\n\n"
    assert file.getvalue() == "\nMail\n\n"
    assert plain.getvalue() == "\r\033[K\nMail\n\n"


def test_closed_terminal_does_not_stop_the_run() -> None:
    """Python must also end without an error, although it flushes the output then."""
    program = (
        "from local.progress import Progress\n"
        "progress = Progress()\n"
        "input()\n"
        "progress.say('to nobody')\n"
        "progress.say('again')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr

    process.stdout.close()
    process.stdin.write("\n")
    process.stdin.close()

    assert (process.stderr.read(), process.wait()) == ("", 0)
    process.stderr.close()


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0004, "    0 ms"), (0.9, "  900 ms"), (1.0, "  1.0 s "), (123.44, "123.4 s ")]
)
def test_duration_has_the_unit_that_fits(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("café ✓ 日本", "café ✓ 日本"),
        ("\x1b[2J\x07\x9b", "\\x1b[2J\\x07\\x9b"),
        ("a\tb\r\nc\u2028d\n", "a b  c d"),
        ("\u202efay\ud800\U000e0001", "\\u202efay\\ud800\\U000e0001"),
    ],
)
def test_untrusted_text_cannot_control_the_terminal(text: str, shown: str) -> None:
    assert make_printable(text) == shown
