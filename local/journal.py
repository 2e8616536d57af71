"""Keeps what happens to each connection. The gateway, the functions and the local AWS record it; the inspector shows it."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from local.masking import Mask

MAX_ENTRIES = 20_000
MAX_FACT_CHARACTERS = 32 * 1024  # a longer fact is cut
MAX_CHARACTERS = 64 * 1024 * 1024  # of all facts together
MAX_SHOWN = 1_000  # entries of one timeline, so that a page can show them
BATCH_SECONDS = 0.25  # between batches of changed connections
BATCH = 200  # connections in a batch
HANDSHAKE_KINDS = {"handshake", "invocation", "log", "decision"}
NAMING_KINDS = {"handshake", "invocation", "message"}  # later entries with a key of these belong to the same connection

Summary = dict[str, Any]


@dataclass(frozen=True, eq=False, slots=True)
class Entry:
    """One step of a connection.

    Attributes:
        at: Unix time in seconds.
        keys: ids that tell which connection the entry belongs to; the connection's own id is first, if known.
        facts: JSON values. Bytes are a JSON document, which is parsed only when it is shown.
    """

    at: float
    kind: str
    keys: tuple[str, ...]
    facts: dict[str, Any]


@dataclass(eq=False, slots=True)
class ConnectionRecord:
    """A connection with its entries.

    Attributes:
        status: the HTTP status of the handshake; None until it is decided.
        kept: handshake entries that are exempt from eviction while the connection is open.
    """

    id: str
    handshake: Entry
    user_id: str | None = None
    ended_at: float | None = None
    status: int | None = None
    cause: str | None = None
    messages: int = 0
    errors: int = 0
    last_at: float = 0.0
    decided_at: float = float("inf")
    subprotocol: str | None = None
    entries: list[Entry] = field(default_factory=list)
    kept: list[Entry] = field(default_factory=list)
    _mask: Mask | None = None

    @property
    def mask(self) -> Mask:
        if self._mask is None:
            facts = self.handshake.facts
            sources = facts.get("identitySources", ())
            self._mask = Mask(facts.get("headers", ()), facts.get("path", ""), sources, self.subprotocol)
        return self._mask

    def is_of_handshake(self, entry: Entry) -> bool:
        return entry.kind in HANDSHAKE_KINDS and entry.at <= self.decided_at

    def update(self, entry: Entry) -> None:
        """Update the summary with a new entry."""
        facts = entry.facts
        self.last_at = entry.at
        match entry.kind:
            case "decision":
                self.status, self.decided_at = facts["status"], entry.at
                self.user_id = entry.keys[2] if len(entry.keys) > 2 else None
                self.subprotocol, self._mask = facts.get("subprotocol"), None
                if self.status != 101:
                    self.ended_at = entry.at
            case "message":
                self.messages += 1
            case "frame":
                self.errors += facts.get("from") == "gateway"
            case "call":
                self.errors += facts.get("effect") == "denied"
            case "end":
                self.ended_at, self.cause = entry.at, facts.get("cause")

    def summarize(self) -> Summary:
        user_id = self.user_id and self.mask.hide_in_text(self.user_id)
        return {
            "id": self.id,
            "userId": user_id,
            "openedAt": self.handshake.at,
            "endedAt": self.ended_at,
            "status": self.status,
            "cause": self.cause,
            "messages": self.messages,
            "errors": self.errors,
            "lastAt": self.last_at,
        }

    def show(self, entry: Entry) -> dict[str, Any]:
        """Return an entry with its credentials hidden."""
        mask, facts = self.mask, entry.facts
        shown = {name: show_fact(mask, value) for name, value in facts.items()}
        if entry.kind == "handshake":
            shown["headers"] = mask.hide_in_headers(facts.get("headers", ()))
            shown["path"] = mask.hide_in_target(facts.get("path", ""))
        return {
            "at": entry.at,
            "kind": entry.kind,
            "keys": [mask.hide_in_text(key) for key in entry.keys],
            "facts": shown,
        }


Listener = Callable[[Entry, ConnectionRecord | None], None]


class Journal:
    """Keeps the newest entries of all connections, and evicts the oldest.

    One of an entry's keys tells which connection it belongs to: the connection's id, a request id of API Gateway or of
    Lambda, or a trace id. An entry of no known connection is passed to the listeners and not kept.

    Attributes:
        listeners: called with each entry when it is recorded, and again when it is completed.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES, max_characters: int = MAX_CHARACTERS) -> None:
        self.listeners: list[Listener] = []
        self._max_entries = max_entries
        self._max_characters = max_characters
        self._characters = 0
        self._entries: deque[tuple[ConnectionRecord, Entry, int]] = deque()  # with its characters; the oldest first
        self._connections: dict[str, ConnectionRecord] = {}  # the oldest first
        self._owners: dict[str, tuple[ConnectionRecord, str]] = {}  # connection and route by key
        self._followers: list[Follower] = []

    def record(self, kind: str, *keys: str | None, **facts: Any) -> Entry:
        """Record a step. The facts are not copied, so the caller must not change them."""
        entry = Entry(time.time(), kind, tuple(key for key in keys if key), facts)
        if kind == "handshake":
            self._connections[entry.keys[0]] = opened = ConnectionRecord(entry.keys[0], entry)
            self._owners[entry.keys[0]] = opened, ""
        if connection := self._find_owner(entry):
            self._keep(connection, entry)
        self._notify(entry, connection)
        return entry

    def complete(self, entry: Entry, **facts: Any) -> None:
        """Add facts that were not known when the entry was recorded, such as the answer of an invocation."""
        entry.facts.update(facts)
        connection = self._find_owner(entry)
        if connection:
            limit_facts(connection, entry.facts)
            connection.last_at = time.time()
            # A failed message is already counted by its error frame.
            is_message = entry.facts.get("purpose") not in ("authorizer", "$connect", "$disconnect")
            connection.errors += entry.kind == "invocation" and "error" in facts and not is_message
        self._notify(entry, connection)

    def find_invocation(self, request_id: str) -> tuple[str, str] | None:
        """Return the connection id and the purpose of an invocation, given Lambda's request id; None if unknown."""
        connection, purpose = self._owners.get(request_id, (None, ""))
        return (connection.id, purpose) if connection else None

    def find(self, search: str = "", limit: int = 200) -> tuple[list[Summary], int]:
        """Find the connections with this text in an id or in the user's id; return the newest first, and their number."""
        found = self._search(search)
        connections = [connection.summarize() for connection in islice(found, limit)]
        return connections, len(connections) + sum(1 for _ in found)

    def get_timeline(self, connection_id: str, limit: int = MAX_SHOWN) -> list[dict[str, Any]]:
        """Return the newest entries of a connection and those of its handshake, the oldest first."""
        connection = self._connections.get(connection_id)
        if connection is None:
            return []
        entries = sorted(connection.entries, key=lambda entry: entry.at)
        earlier = [entry for entry in entries[:-limit] if connection.is_of_handshake(entry)]
        return [connection.show(entry) for entry in earlier[:limit] + entries[-limit:]]

    def find_traces(self, trace_id: str) -> list[dict[str, Any]]:
        """Return the segment documents of a trace in X-Ray's format."""
        connection, _ = self._owners.get(trace_id, (None, ""))
        entries = connection.entries if connection else ()
        found = [entry for entry in entries if entry.kind == "trace" and trace_id in entry.keys]
        return [connection.show(entry)["facts"]["document"] for entry in found] if connection else []

    async def follow(self) -> AsyncGenerator[list[Summary], None]:
        """Yield batches of the connections that have changed, at most four a second."""
        follower = Follower()
        self._followers.append(follower)
        try:
            while True:
                await follower.has_changed.wait()
                yield [connection.summarize() for connection in follower.take()]
                await asyncio.sleep(BATCH_SECONDS)
        finally:
            self._followers.remove(follower)

    def _find_owner(self, entry: Entry) -> ConnectionRecord | None:
        return next((self._owners[key][0] for key in entry.keys if key in self._owners), None)

    def _keep(self, connection: ConnectionRecord, entry: Entry) -> None:
        limit_facts(connection, entry.facts)
        if entry.kind in NAMING_KINDS:
            owner = connection, entry.facts.get("purpose") or entry.facts.get("routeKey") or ""
            for key in entry.keys:
                self._owners.setdefault(key, owner)
        connection.entries.append(entry)
        connection.update(entry)
        self._append(connection, entry)
        if connection.ended_at is not None:
            for kept in connection.kept:
                self._append(connection, kept)
            connection.kept.clear()
        while self._entries and (len(self._entries) > self._max_entries or self._characters > self._max_characters):
            self._forget_oldest()

    def _append(self, connection: ConnectionRecord, entry: Entry) -> None:
        characters = count_characters(entry.facts)
        self._characters += characters
        self._entries.append((connection, entry, characters))

    def _forget_oldest(self) -> None:
        connection, entry, characters = self._entries.popleft()
        self._characters -= characters
        if connection.ended_at is None and connection.is_of_handshake(entry):
            connection.kept.append(entry)
            return
        connection.entries.remove(entry)
        if entry.kind in NAMING_KINDS:
            for key in entry.keys[1:]:
                self._owners.pop(key, None)
        if not connection.entries:
            self._connections.pop(connection.id, None)
            self._owners.pop(connection.id, None)

    def _search(self, text: str) -> Iterator[ConnectionRecord]:
        newest_first = reversed(self._connections.values())
        wanted = text.strip().lower()
        if not wanted:
            return newest_first
        named = {owner.id for key, (owner, _) in self._owners.items() if wanted in key.lower()}
        return (each for each in newest_first if each.id in named or wanted in (each.user_id or "").lower())

    def _notify(self, entry: Entry, connection: ConnectionRecord | None) -> None:
        if connection:
            for follower in self._followers:
                follower.add(connection)
        for listen in self.listeners:
            listen(entry, connection)


class Follower:
    """A set of the connections that have changed since they were last taken. It cannot grow with a slow reader."""

    def __init__(self) -> None:
        self.has_changed = asyncio.Event()
        self._changed: dict[ConnectionRecord, None] = {}

    def add(self, connection: ConnectionRecord) -> None:
        self._changed[connection] = None
        self.has_changed.set()

    def take(self) -> list[ConnectionRecord]:
        taken = list(islice(self._changed, BATCH))
        for connection in taken:
            del self._changed[connection]
        if not self._changed:
            self.has_changed.clear()
        return taken


def count_characters(facts: dict[str, Any]) -> int:
    return sum(len(value) for value in facts.values() if isinstance(value, str | bytes))


def limit_facts(connection: ConnectionRecord, facts: dict[str, Any]) -> None:
    """Cut long facts. Hide credentials first, because a cut credential would not be recognized."""
    for name, value in facts.items():
        if isinstance(value, str | bytes) and len(value) > MAX_FACT_CHARACTERS:
            shown = show_fact(connection.mask, value)
            text = shown if isinstance(shown, str) else json.dumps(cut_strings(shown), ensure_ascii=False)
            facts[name] = cut(text) if isinstance(shown, str) or len(text) > MAX_FACT_CHARACTERS else text.encode()


def cut_strings(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: cut_strings(each) for name, each in value.items()}
    if isinstance(value, list):
        return [cut_strings(each) for each in value]
    return cut(value, MAX_FACT_CHARACTERS // 4) if isinstance(value, str) else value


def cut(text: str, limit: int = MAX_FACT_CHARACTERS) -> str:
    return text if len(text) <= limit else f"{text[:limit]} … (cut, there are {len(text)} characters)"


def show_fact(mask: Mask, value: Any) -> Any:
    """Return a fact as a JSON value with its credentials hidden."""
    if not isinstance(value, bytes):
        return mask.hide_in(value)
    try:
        return mask.hide_in(parse_json(value))
    except (ValueError, RecursionError):  # not JSON, or nested too deeply
        return mask.hide_in_text(value.decode(errors="replace"))


def parse_json(document: bytes) -> Any:
    """Parse a JSON document. NaN and Infinity become text, because browsers cannot parse them."""
    return json.loads(document, parse_constant=str)
