"""Synthesizes the stack; needs no account, no credentials, no Docker engine and no network."""

from typing import TypeVar

import aws_cdk as cdk

from infra.backend_stack import BackendStack

T = TypeVar("T")

SWITCH = {"true": True, "false": False}
REMOVAL_POLICIES = {"destroy": cdk.RemovalPolicy.DESTROY, "retain": cdk.RemovalPolicy.RETAIN}


def main() -> None:
    app = cdk.App()
    BackendStack(
        app,
        "WebSocketCognito",
        description="WebSocket API that lets in users of a Cognito user pool",
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


if __name__ == "__main__":
    main()
