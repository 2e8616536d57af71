"""Collect what a browser writes to its console."""

from __future__ import annotations

import re
from dataclasses import dataclass

from playwright.async_api import BrowserContext, ConsoleMessage, WebError

BROWSER_LINES = re.compile(
    "WebSocket connection to '[^']*' failed"  # a failed handshake
    "|Failed to load resource: the server responded with a status of 400"  # a call that Cognito refused
)
AMPLIFY_WARNING = re.compile("You are using a custom Amazon")  # the user pool is not at AWS


@dataclass(frozen=True)
class Line:
    """A line of a browser's console, or an uncaught exception."""

    kind: str
    text: str

    @property
    def is_from_browser(self) -> bool:
        return BROWSER_LINES.match(self.text) is not None


class Console:
    """The console lines of all pages of a test.

    Attributes:
        expected: patterns of the errors and warnings that the test provokes.
    """

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.expected: list[re.Pattern[str]] = []

    def listen(self, context: BrowserContext) -> None:
        context.on("console", self._add_message)
        context.on("weberror", self._add_error)

    def find_unexpected_lines(self) -> list[Line]:
        """Return the errors and warnings that no pattern expects."""
        problems = (line for line in self.lines if line.kind in {"error", "warning"})
        expected = (AMPLIFY_WARNING, BROWSER_LINES, *self.expected)
        return [line for line in problems if not any(pattern.search(line.text) for pattern in expected)]

    def _add_message(self, message: ConsoleMessage) -> None:
        self.lines.append(Line(message.type, message.text))

    def _add_error(self, error: WebError) -> None:
        self.lines.append(Line("error", str(error.error)))
