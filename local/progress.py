"""One line for each step, with what came of it and how long it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

NAME_WIDTH = 30


class StepFailed(Exception):
    """A step failed; the message says which one and why."""


class Step:
    """A step that is being done; `result` is what its line will say."""

    result = ""


class Progress:
    """Prints steps; colour and the step in progress only on a terminal."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._tty = stream.isatty()

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Times the block; an exception becomes StepFailed with the step's name."""
        step = Step()
        started = time.monotonic()
        if self._tty:
            self._write(f"  … {name}\r")
        try:
            yield step
        except Exception as error:
            self._line("✗", "31", name, type(error).__name__, time.monotonic() - started)
            raise StepFailed(f"{name}: {str(error) or type(error).__name__}") from error
        self._line("✓", "32", name, step.result, time.monotonic() - started)

    def say(self, text: str = "") -> None:
        self._write(f"{text}\n")

    def _line(self, mark: str, colour: str, name: str, result: str, seconds: float) -> None:
        mark = f"\033[{colour}m{mark}\033[0m" if self._tty else mark
        self._write(f"  {mark} {name:<{NAME_WIDTH}} {duration(seconds)}  {result}".rstrip() + "\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def duration(seconds: float) -> str:
    return f"{seconds * 1000:5.0f} ms" if seconds < 1 else f"{seconds:5.1f} s "
