"""What a browser says during a test, and the types of the fixtures that start one."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import BrowserContext, ConsoleMessage, WebError

LINES_OF_THE_BROWSER = re.compile(
    "WebSocket connection to '[^']*' failed"  # each handshake that does not succeed
    "|Failed to load resource: the server responded with a status of 400"  # each call that Cognito refuses
)
LINE_OF_AMPLIFY = re.compile("You are using a custom Amazon")  # about a user pool that is not at AWS

NewContext = Callable[..., Awaitable[BrowserContext]]
Synthesize = Callable[[Mapping[str, str]], Path]


@dataclass(frozen=True)
class Line:
    """A line of a browser's console, or an exception that nobody has caught."""

    kind: str
    text: str

    @property
    def is_of_the_browser(self) -> bool:
        return LINES_OF_THE_BROWSER.match(self.text) is not None


class Console:
    """What the pages of a test write to their consoles.

    Attributes:
        expected: patterns of further lines that the test provokes.
    """

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.expected: list[re.Pattern[str]] = []

    def listen(self, context: BrowserContext) -> None:
        context.on("console", self._add_message)
        context.on("weberror", self._add_error)

    def complaints(self) -> list[Line]:
        complaints = (line for line in self.lines if line.kind in {"error", "warning"})
        known = (LINE_OF_AMPLIFY, LINES_OF_THE_BROWSER, *self.expected)
        return [line for line in complaints if not any(pattern.search(line.text) for pattern in known)]

    def _add_message(self, message: ConsoleMessage) -> None:
        self.lines.append(Line(message.type, message.text))

    def _add_error(self, error: WebError) -> None:
        self.lines.append(Line("error", str(error.error)))
