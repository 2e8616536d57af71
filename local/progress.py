"""Prints to the terminal: one line for each step with its result and duration, log lines, and mails."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from local.errors import explain

NAME_WIDTH = 30


class StepFailed(Exception):
    """A step failed. The message says which step and why."""


class Step:
    """A step in progress. Its line will show `result`."""

    result = ""


class Progress:
    """Prints steps. Colours and the step in progress are shown on a terminal only."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._tty = stream.isatty()
        self._colours = self._tty and "NO_COLOR" not in os.environ  # https://no-color.org
        self._current: list[str] = []  # the names of the steps in progress

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Time the block; an exception becomes StepFailed with the step's name."""
        step = Step()
        started = time.monotonic()
        self._current.append(name)
        self._write("")
        try:
            yield step
        except Exception as error:
            self._end(name, "✗", "31", "", time.monotonic() - started)
            raise StepFailed(f"{name}: {explain(error)}") from error
        except BaseException:
            self._current.remove(name)
            raise
        self._end(name, "✓", "32", step.result, time.monotonic() - started)

    def say(self, text: str = "") -> None:
        self._write(f"{text}\n")

    def highlight(self, text: str) -> None:
        """Print a text so that it stands out between log lines."""
        self.say(f"\n{self.colour('1', text)}\n")

    def _end(self, name: str, mark: str, colour: str, result: str, seconds: float) -> None:
        self._current.remove(name)
        line = f"  {self.colour(colour, mark)} {name:<{NAME_WIDTH}} {format_duration(seconds)}  {result}"
        self.say(line.rstrip())

    def colour(self, colour: str, text: str) -> str:
        """Return the text in a colour; unchanged if the colour is empty or the terminal shows no colours."""
        return f"\033[{colour}m{text}\033[0m" if self._colours and colour else text

    def _write(self, text: str) -> None:
        """Write a text above the line of the step in progress."""
        if self._tty:
            text = f"\r\033[K{text}" + (f"  … {self._current[-1]}" if self._current else "")
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # the terminal is closed or the disk is full; the local run must still stop in order
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def format_duration(seconds: float) -> str:
    return f"{seconds * 1000:5.0f} ms" if seconds < 1 else f"{seconds:5.1f} s "


def make_printable(text: str) -> str:
    """Return an untrusted text as one line without characters that control a terminal."""
    return "".join(
        character if character.isprintable() else " " if character.isspace() else ascii(character)[1:-1]
        for character in text
    ).rstrip()
