"""Synthesizes the stack; needs no account, no credentials, no Docker engine and no network."""

import re
from typing import TypeVar

import aws_cdk as cdk

from infra.backend_stack import BackendStack
from infra.websocket_api import Credential

T = TypeVar("T")

ORIGIN = r"[a-z][a-z0-9+.-]*://[^\s/,?#@*A-Z]+"  # RFC 6454 section 6.2; images/authorizer has the same
SWITCH = {"true": True, "false": False}
CREDENTIALS = {str(credential): credential for credential in Credential}
REMOVAL_POLICIES = {"destroy": cdk.RemovalPolicy.DESTROY, "retain": cdk.RemovalPolicy.RETAIN}


def main() -> None:
    app = cdk.App()
    BackendStack(
        app,
        "WebSocketCognito",
        description="WebSocket API that lets in users of a Cognito user pool",
        credential=chosen(app, "credential", CREDENTIALS, default="querystring"),
        allowed_origins=listed(
            app, "allowedOrigins", ORIGIN, "an origin as browsers write it, e.g. https://example.com"
        ),
        allow_missing_origin=chosen(app, "allowMissingOrigin", SWITCH, default="false"),
        required_group=written(app, "requiredGroup", r"\S{1,128}", "a group's name"),
        max_connections_per_user=whole(app, "maxConnectionsPerUser"),
        self_sign_up=chosen(app, "selfSignUp", SWITCH, default="false"),
        removal_policy=chosen(app, "removalPolicy", REMOVAL_POLICIES, default="retain"),
        log_role=chosen(app, "apiGatewayLogRole", SWITCH, default="true"),
    )
    app.synth()


def chosen(app: cdk.App, name: str, values: dict[str, T], *, default: str) -> T:
    """What the context, in cdk.json or by `--context name=value`, says; SystemExit names what it may say."""
    value = app.node.try_get_context(name)
    value = default if value is None else str(value).lower()
    if value not in values:
        raise SystemExit(f"context {name} is {value!r}, it must be one of {', '.join(values)}")
    return values[value]


def written(app: cdk.App, name: str, pattern: str, what: str) -> str | None:
    value = app.node.try_get_context(name)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or not re.fullmatch(pattern, str(value)):
        raise SystemExit(f"context {name} is {value!r}, it must be {what}")
    return str(value)


def whole(app: cdk.App, name: str) -> int | None:
    # 9999 connections are counted in 280 KB, and an item of DynamoDB ends at 400 KB.
    value = written(app, name, "[1-9][0-9]{0,3}", "a number from 1 to 9999")
    return None if value is None else int(value)


def listed(app: cdk.App, name: str, pattern: str, what: str) -> list[str]:
    """A list in cdk.json; `--context` gives it as text, with commas."""
    value = app.node.try_get_context(name)
    if value is None or value == "":
        return []
    items = [str(item).strip() for item in (value if isinstance(value, list) else str(value).split(","))]
    for item in items:
        if not re.fullmatch(pattern, item):
            raise SystemExit(f"context {name} has {item!r}, it must be {what}")
    return items


if __name__ == "__main__":
    main()
