"""Masks credentials in what the inspector shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, unquote_plus

# A compact JWS, or the beginning of one that was cut.
JWS = re.compile(r"eyJ[\w-]{17,}(?:(?:\.|%2[Ee])[\w-]*)*")
CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization", "x-amz-security-token"})  # headers
SUBPROTOCOLS = "sec-websocket-protocol"
MIN_SECRET_CHARACTERS = 16  # a shorter value may be a common word, so it is hidden in its own header or parameter only
HEADER_SOURCE, QUERY_SOURCE = "route.request.header.", "route.request.querystring."
HEADER_MAPS = {"headers", "multiValueHeaders"}
QUERY_MAPS = {"queryStringParameters", "multiValueQueryStringParameters"}


class Mask:
    """Hides the credentials of one connection.

    Credentials are the values of the authorizer's identity sources, the headers in `CREDENTIALS`, and the offered
    subprotocols that were not selected. They are hidden in their headers and parameters. Long credentials, and all text
    that looks like a compact JWS, are hidden everywhere, for example in a function's log.
    """

    def __init__(
        self,
        headers: Iterable[tuple[str, str]] = (),
        target: str = "",
        identity_sources: Iterable[str] = (),
        subprotocol: str | None = None,
    ) -> None:
        sources = tuple(identity_sources)
        self._headers = CREDENTIALS | {
            name.removeprefix(HEADER_SOURCE).lower() for name in sources if name.startswith(HEADER_SOURCE)
        } - {SUBPROTOCOLS}
        self._parameters = frozenset(
            name.removeprefix(QUERY_SOURCE) for name in sources if name.startswith(QUERY_SOURCE)
        )
        self._subprotocol = subprotocol
        values = [value for name, value in headers if name.lower() in self._headers]
        sent = [each.partition("=") for each in target.partition("?")[2].split("&")]
        raw = [value for name, _, value in sent if unquote_plus(name) in self._parameters]
        values += [variant for value in raw for variant in (value, unquote(value), unquote_plus(value))]
        offers = [each.strip() for name, value in headers if name.lower() == SUBPROTOCOLS for each in value.split(",")]
        values += [each for each in offers if each != subprotocol]
        secrets = {variant for value in values for part in split_secret(value) for variant in write_variants(part)}
        self._secrets = sorted(secrets, key=len, reverse=True)  # a longer secret may contain a shorter one

    def hide_in_text(self, text: str) -> str:
        text = JWS.sub(lambda found: hide(found[0]), text)
        for secret in self._secrets:  # a single pattern of all secrets would take milliseconds to compile
            text = text.replace(secret, hide(secret))
        return text

    def hide_in(self, value: Any, hidden: frozenset[str] = CREDENTIALS) -> Any:
        """Return a copy of a JSON value in which credentials, and the members named in `hidden`, show their length only."""
        if isinstance(value, str):
            return self.hide_in_text(value)
        if isinstance(value, Mapping):
            return {self.hide_in_text(str(name)): self._hide_member(name, each, hidden) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide_in(each, hidden) for each in value]
        return value

    def hide_in_headers(self, headers: Iterable[tuple[str, str]]) -> dict[str, Any]:
        """Return a request's headers by name with credentials hidden. A repeated header has a list of values."""
        values: dict[str, list[str]] = {}
        for name, value in headers:
            values.setdefault(name, []).append(value)
        hidden: dict[str, Any] = self.hide_in({"headers": values})["headers"]
        return {name: each[0] if len(each) == 1 else each for name, each in hidden.items()}

    def hide_in_target(self, target: str) -> str:
        """Return a request's path and query string with credentials hidden."""
        path, question, _ = target.partition("?")
        parameters = (
            f"{quote(name)}={hide(value) if name in self._parameters else quote(value)}"
            for name, value in read_parameters(target)
        )
        return self.hide_in_text(path + question + "&".join(parameters))

    def _hide_member(self, name: str, value: Any, hidden: frozenset[str]) -> Any:
        if name in HEADER_MAPS:
            return self.hide_in(value, self._headers)
        if name in QUERY_MAPS:
            return self.hide_in(value, self._parameters)
        lower = str(name).lower()
        if lower == SUBPROTOCOLS:
            return self._hide_offers(value)
        if name in hidden or (hidden is not self._parameters and lower in hidden):
            return hide_all(value)
        return self.hide_in(value, hidden)

    def _hide_offers(self, value: Any) -> Any:
        """Hide the subprotocols that were not selected."""
        if isinstance(value, list):
            return [self._hide_offers(each) for each in value]
        if not isinstance(value, str):
            return value
        names = (name.strip() for name in value.split(","))
        return ", ".join(self.hide_in_text(name) if name == self._subprotocol else hide(name) for name in names)


def hide(text: str) -> str:
    return f"••• ({len(text)} characters)"


def hide_all(value: Any) -> Any:
    if isinstance(value, list):
        return [hide_all(each) for each in value]
    return hide(value if isinstance(value, str) else json.dumps(value))


def read_parameters(target: str) -> list[tuple[str, str]]:
    return parse_qsl(target.partition("?")[2], keep_blank_values=True)


def split_secret(value: str) -> Iterator[str]:
    """Yield the long parts of a credential, e.g. the token after `Bearer`, and each part of a JWS."""
    for word in re.split(r"[\s,;]+", value):
        yield from (part for part in (word, *re.split(r"[.=]", word)) if len(part) >= MIN_SECRET_CHARACTERS)


def write_variants(secret: str) -> Iterator[str]:
    """Yield a secret as it is written in text, in a URL and in JSON."""
    yield secret
    yield quote(secret, safe="")
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
