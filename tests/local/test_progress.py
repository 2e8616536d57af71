"""What a user sees of the steps."""

from __future__ import annotations

import io
import re

import pytest

from local.progress import Progress, StepFailed, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_step_that_was_done_says_what_came_of_it() -> None:
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
    [(AssertionError("the table is not empty"), "the table is not empty"), (TimeoutError(), "TimeoutError")],
)
def test_step_that_failed_is_named_with_its_reason(error: Exception, message: str) -> None:
    output = io.StringIO()

    with pytest.raises(StepFailed) as failed, Progress(output).step("table before"):
        raise error

    assert str(failed.value) == f"table before: {message}"
    assert failed.value.__cause__ is error
    assert re.fullmatch(rf"  ✗ table before {{18}} +\d+ ms  {type(error).__name__}\n", output.getvalue())


def test_interruption_is_not_a_failure() -> None:
    with pytest.raises(KeyboardInterrupt), Progress(io.StringIO()).step("table before"):
        raise KeyboardInterrupt


def test_terminal_shows_the_step_in_progress_and_colours() -> None:
    output = Terminal()

    with Progress(output).step("table before"):
        in_progress = output.getvalue()

    assert in_progress == "  … table before\r"
    assert output.getvalue().removeprefix(in_progress).startswith("  \033[32m✓\033[0m table before")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0004, "    0 ms"), (0.9, "  900 ms"), (1.0, "  1.0 s "), (123.44, "123.4 s ")]
)
def test_duration_has_the_unit_that_fits(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
