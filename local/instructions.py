"""Writes what `make up` prints when everything runs: the addresses, and commands to paste into another terminal."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from local import example
from local.apigateway.limits import Limits
from local.page_settings import PAGE_CONFIG
from local.state import write_flags
from local.system import Options, System

UNKNOWN = "…"  # a value that the reader must fill in


def write_instructions(system: System, options: Options, *, user: str, no_token: str | None = None) -> str:
    """Return the text for a running system; `no_token` says why `make token` cannot print a token of `user`."""
    flags = write_flags(system.port)
    lines = [
        *describe_page(system, options),
        *describe_inspector(system),
        *describe_addresses(system, user, no_token, flags),
        "",
        "In another terminal, from here:",
        *(f"  {line}" for line in write_lines_to_paste(system, no_token, flags)),
    ]
    if not system.stack.api.deployed:
        lines += [
            "",
            "The stage is not deployed, it has no AutoDeploy and no DeploymentId: every handshake gets 403, as on AWS.",
        ]
    limits = options.limits.speed_up(options.clock_speed)
    if limits != Limits():
        lines += ["", f"Connections end after {limits.idle_seconds:g} s idle, {limits.connection_seconds:g} s in all."]
    return "\n".join(("", *lines, "", "Ctrl-C ends everything."))


def describe_page(system: System, options: Options) -> Iterator[str]:
    """Yield the lines about the page: its address, and why its connections would be refused."""
    if system.page_url is None or system.page_settings is None:
        if options.page_port is not None and system.user_pool_id:
            yield f"No page: the template has no output {PAGE_CONFIG}."
        return
    does = "sign up there; the code from the mail appears below"
    if not system.page_settings.get("selfSignUp"):
        does = "sign in there; mails to users appear below"
    yield f"Page        {system.page_url}        ({does})"
    origins = system.page_settings.get("allowedOrigins")
    if origins and system.page_url not in origins:
        yield f"            Its connections are refused, because allowedOrigins does not have {system.page_url}."
        yield f"            Start with --context allowedOrigins={','.join((*origins, system.page_url))}"


def describe_inspector(system: System) -> Iterator[str]:
    if system.inspector_url:
        yield f"Inspector   {system.inspector_url}        (what happens to each connection, live)"


def describe_addresses(system: System, user: str, no_token: str | None, flags: str) -> Iterator[str]:
    yield f"WebSocket   {example.build_handshake(system, UNKNOWN)['uri']}"
    if system.user_pool_id and no_token:
        yield f"Token       none: {no_token}"
    elif system.user_pool_id:
        groups = example.find_required_groups(system.stack)
        member = f" in the group {groups[0]}" if groups else ""
        group = f" GROUP={shlex.quote(groups[0])}" if groups else ""
        yield f"Token       make -s token{flags}                (an ID token of {user}{member}, by SRP)"
        yield f"Users       make user EMAIL=bob@example.com{group}{flags}"
    names = {"AWS::Cognito::UserPool": "Cognito", "AWS::DynamoDB::Table": "DynamoDB"}
    services = " and ".join(name for type_, name in names.items() if system.stack.find_first(type_))
    if system.aws.started and services:
        yield f"AWS         {system.aws.url}        ({services} for boto3 and the AWS CLI, keys test and test)"


def write_lines_to_paste(system: System, no_token: str | None, flags: str) -> Iterator[str]:
    ours = example.takes_id_token(system.stack) and system.user_pool_id and not no_token
    token = f"$(make -s token{flags})" if ours else UNKNOWN
    yield write_wscat_line(**example.build_handshake(system, token))
    origin = example.find_allowed_origin(system.stack)
    yield "curl -i -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' \\"
    header = f" -H {shlex.quote(f'Origin: {origin}')}" if origin else ""
    yield f"  -H 'Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg=='{header} {system.callback_url}"
    connection = "" if example.find_connection_table(system.stack) else f" CONNECTION={UNKNOWN}"
    yield f"make -s post MESSAGE='hello from outside'{connection}{flags}"


def write_wscat_line(
    uri: str,
    subprotocols: Sequence[str] = (),
    origin: str | None = None,
    additional_headers: Mapping[str, str] | None = None,
    **_: Any,
) -> str:
    """Return the wscat command that opens the same connection as websockets' `connect` with these arguments."""
    words = ["-c", uri, *(word for name in subprotocols for word in ("-s", name))]
    words += ["-o", origin] if origin else []
    words += [word for name, value in (additional_headers or {}).items() for word in ("-H", f"{name}: {value}")]
    return " ".join(["npx wscat", *(quote_word(word) for word in words)])


def quote_word(word: str) -> str:
    """Quote a word for the shell, so that the shell still replaces a `$(…)` in it."""
    if "$(" in word:
        return f'"{word}"'
    return word if re.fullmatch(r"[\w:/.…-]+", word) else shlex.quote(word)
