"""Everything that the local run knows about our own application: its settings, and how its clients connect.

The packages below local/ know no application, because --template may run another one.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from local.aws.iam import Role
from local.cloudformation.stack import Stack
from local.cloudformation.template import Template
from local.lambda_.function import Function
from local.system import System

SUBPROTOCOL = "echo.v1"
OPERATOR = "operator"  # the user of `python -m ops`; logs have this name instead of a function's


def find_authorizer(stack: Stack) -> Function | None:
    """Return the function that authorizes `$connect`."""
    route = stack.api.routes.get("$connect")
    return stack.functions.get(route.authorizer.function_arn) if route and route.authorizer else None


def read_setting(stack: Stack, name: str) -> str | None:
    """Return an environment variable of the authorizer, or else of the function of `$connect`; None without it."""
    route = stack.api.routes.get("$connect")
    functions = (find_authorizer(stack), stack.functions.get(route.function_arn) if route else None)
    return next((str(each.environment[name]) for each in functions if each and each.environment.get(name)), None)


def takes_id_token(stack: Stack) -> bool:
    """Return whether clients connect with an ID token, as in our own application and in the AWS sample."""
    return read_setting(stack, "CREDENTIAL_MODE") is not None or list_credentials(stack) == [("querystring", "idToken")]


def find_required_groups(stack: Stack) -> list[str]:
    """Return the group that users must be in to connect, as a list with one group or none."""
    group = read_setting(stack, "REQUIRED_GROUP")
    return [group] if group else []


def find_allowed_origin(stack: Stack) -> str | None:
    """Return the first allowed origin; None if all origins are allowed."""
    return (read_setting(stack, "ALLOWED_ORIGINS") or "").partition(" ")[0] or None


def find_connection_limit(stack: Stack) -> int | None:
    """Return the limit of connections of a user; None without a limit."""
    limit = read_setting(stack, "MAX_CONNECTIONS_PER_USER")
    return int(limit) if limit else None


def find_connection_table(stack: Stack) -> str | None:
    """Return the table with a row for each connection."""
    return read_setting(stack, "CONNECTION_TABLE_NAME")


def find_operator_policy(template: Template) -> Role | None:
    """Return a role with the stack's operator policy; None without such a policy."""
    policies = (each for each, resource in template.resources.items() if resource["Type"] == "AWS::IAM::ManagedPolicy")
    found = next((logical_id for logical_id in policies if "OperatorPolicy" in logical_id), None)
    return template.read_managed_policy(found) if found else None


def list_credentials(stack: Stack) -> list[tuple[str, str]]:
    """Return the identity sources that the client must send, as pairs: `querystring` or `header`, and the name."""
    route = stack.api.routes.get("$connect")
    sources = route.authorizer.identity_sources if route and route.authorizer else ()
    places = (source.removeprefix("route.request.").split(".", 1) for source in sources)
    return [(place[0], place[1]) for place in places if place[0] in {"querystring", "header"} and len(place) == 2]


def build_handshake(system: System, token: str) -> dict[str, Any]:
    """Return arguments of websockets' `connect` that open a connection with a token.

    For another application, each identity source gets the token.
    """
    handshake: dict[str, Any] = {"uri": system.websocket_url, "proxy": None}
    query = ""
    for kind, name in list_credentials(system.stack):
        if kind == "querystring":
            query += f"{'&' if query else '?'}{quote(name)}={token}"
        elif name.lower() == "sec-websocket-protocol":
            ours = takes_id_token(system.stack)
            handshake["subprotocols"] = [SUBPROTOCOL, f"idToken.{token}"] if ours else [token]
        elif name.lower() == "origin":
            handshake["origin"] = token
        else:
            handshake.setdefault("additional_headers", {})[name] = token
    handshake["uri"] += query
    if origin := find_allowed_origin(system.stack):
        handshake["origin"] = origin
    return handshake
