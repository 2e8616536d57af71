"""Selects the route of a message.

https://docs.aws.amazon.com/apigateway/latest/developerguide/websocket-api-develop-routes.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from local.errors import TemplateError

STEP = r"(?:\.[\w-]+|\['[^']+'\]|\[\d+\])"
BARE_REFERENCE = re.compile(rf"\$request\.body({STEP}+)")
REFERENCE = re.compile(rf"\$\{{request\.body({STEP}+)\}}")
STEPS = re.compile(r"\.(?P<dotted>[\w-]+)|\['(?P<quoted>[^']+)'\]|\[(?P<index>\d+)\]")
# Also matches strings, so that no name is found inside one. Possessive, so that no message makes it backtrack for long.
BARE_NAME = re.compile(r'"(?:[^"\\]|\\.|\\\Z)*+(?:"|\Z)|(?<![\w$])([A-Za-z_$][\w$]*+)(?=\s*:)', re.DOTALL)

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class RouteSelection:
    """A parsed route selection expression: a sequence of static texts and of paths into the message."""

    parts: tuple[str | Path, ...]

    @classmethod
    def parse(cls, expression: str) -> RouteSelection:
        r"""Parse `$request.body.a.b`, `${request.body.a}` with or without text around it, static text, or `\$default`.

        Raises:
            TemplateError: the expression has another form.
        """
        if match := BARE_REFERENCE.fullmatch(expression):
            return cls((parse_path(match[1]),))
        pieces = REFERENCE.split(expression)  # text, path, text, …
        if any(re.search(r"(?<!\\)\$", text) for text in pieces[::2]):
            raise TemplateError(
                f"RouteSelectionExpression {expression} cannot be evaluated locally;"
                " it must be $request.body.NAME, or text with ${request.body.NAME} in it"
            )
        return cls(
            tuple(parse_path(piece) if index % 2 else piece.replace("\\$", "$") for index, piece in enumerate(pieces))
        )

    def evaluate(self, message: str) -> str | None:
        """Return the expression's value; None if the message is not a JSON object. A missing path gives an empty text."""
        if all(isinstance(part, str) for part in self.parts):
            return "".join(str(part) for part in self.parts)
        try:
            body = parse_lenient_json(message)
            if not isinstance(body, dict):
                return None
            return "".join(part if isinstance(part, str) else find_text(body, part) for part in self.parts)
        except (ValueError, TypeError, RecursionError):
            return None

    def select(self, routes: Container[str], message: str) -> str | None:
        """Return the key of the matching route, else `$default`, else None. `$connect` and `$disconnect` never match."""
        key = self.evaluate(message)
        if key and not key.startswith("$") and key in routes:
            return key
        return "$default" if "$default" in routes else None


def parse_path(steps: str) -> Path:
    return tuple(
        int(step["index"]) if step["index"] else step["dotted"] or step["quoted"] for step in STEPS.finditer(steps)
    )


def find_text(value: Any, path: Path) -> str:
    """Return the value at the path as text, or an empty text without a value. Raise TypeError for an object."""
    for step in path:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and step < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return to_text(value)


def to_text(value: Any) -> str:
    """Return a JSON value as text: an array as `[item1, item2]`, null as an empty text. Raise TypeError for an object."""
    if isinstance(value, list):
        return f"[{', '.join(to_text(item) for item in value)}]"
    if isinstance(value, dict):
        raise TypeError("an object selects no route")
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def parse_lenient_json(text: str) -> Any:
    """Parse JSON in which names may lack quotes, as API Gateway does: `{action: "send"}`. Raise ValueError for other text."""
    try:
        return json.loads(text)
    except ValueError:
        return json.loads(BARE_NAME.sub(lambda match: f'"{match[1]}"' if match[1] else match[0], text))
