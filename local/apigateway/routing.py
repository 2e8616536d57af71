"""Which route a message takes.

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
# Strings are matched to be passed over; nothing is ever read twice, or a client could keep the gateway busy.
BARE_NAME = re.compile(r'"(?:[^"\\]|\\.|\\\Z)*+(?:"|\Z)|(?<![\w$])([A-Za-z_$][\w$]*+)(?=\s*:)', re.DOTALL)

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class RouteSelection:
    """A route selection expression: static text and JSONPaths into the message, in turn."""

    parts: tuple[str | Path, ...]

    @classmethod
    def parse(cls, expression: str) -> RouteSelection:
        r"""The forms are `$request.body.a.b`, `${request.body.a}` with text around it, static text and `\$default`.

        Raises:
            TemplateError: it is none of them.
        """
        if match := BARE_REFERENCE.fullmatch(expression):
            return cls((path(match[1]),))
        pieces = REFERENCE.split(expression)  # text, path, text, …
        for text in pieces[::2]:
            if re.search(r"(?<!\\)\$", text):
                raise TemplateError(f"RouteSelectionExpression {expression} cannot be evaluated locally")
        return cls(tuple(path(piece) if index % 2 else piece.replace("\\$", "$") for index, piece in enumerate(pieces)))

    def value(self, message: str) -> str | None:
        """What the message selects; a path that it lacks is empty. None if it cannot be evaluated."""
        if all(isinstance(part, str) for part in self.parts):
            return "".join(str(part) for part in self.parts)
        try:
            body = lenient_json(message)
            if not isinstance(body, dict):
                return None
            return "".join(part if isinstance(part, str) else found(body, part) for part in self.parts)
        except (ValueError, TypeError, RecursionError):
            return None

    def route_key(self, routes: Container[str], message: str) -> str | None:
        """The route: an exact match, else `$default`, else None. Nobody can select `$connect` or `$disconnect`."""
        key = self.value(message)
        if key and not key.startswith("$") and key in routes:
            return key
        return "$default" if "$default" in routes else None


def path(steps: str) -> Path:
    return tuple(
        int(step["index"]) if step["index"] else step["dotted"] or step["quoted"] for step in STEPS.finditer(steps)
    )


def found(value: Any, path: Path) -> str:
    """The value at the path as text, empty if there is none. TypeError if it is an object."""
    for step in path:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and step < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return as_text(value)


def as_text(value: Any) -> str:
    """An array becomes `[item1, item2]`, null is empty."""
    if isinstance(value, list):
        return f"[{', '.join(as_text(item) for item in value)}]"
    if isinstance(value, dict):
        raise TypeError("an object selects no route")
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def lenient_json(text: str) -> Any:
    """API Gateway also reads JSON whose member names are not quoted, `{action: "send"}`. ValueError if not even that."""
    try:
        return json.loads(text)
    except ValueError:
        return json.loads(BARE_NAME.sub(lambda match: f'"{match[1]}"' if match[1] else match[0], text))
