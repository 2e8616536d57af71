"""Synthesizes the stack; needs no account, no credentials, no Docker engine and no network."""

import aws_cdk as cdk

from infra.backend_stack import BackendStack

REMOVAL_POLICIES = {"destroy": cdk.RemovalPolicy.DESTROY, "retain": cdk.RemovalPolicy.RETAIN}


def main() -> None:
    app = cdk.App()
    removal = app.node.try_get_context("removalPolicy") or "retain"
    if removal not in REMOVAL_POLICIES:
        raise SystemExit(f"context removalPolicy is {removal!r}, it must be one of {', '.join(REMOVAL_POLICIES)}")
    BackendStack(
        app,
        "WebSocketCognito",
        description="WebSocket API that lets in users of a Cognito user pool",
        removal_policy=REMOVAL_POLICIES[removal],
        log_role=app.node.try_get_context("apiGatewayLogRole") is not False,
    )
    app.synth()


if __name__ == "__main__":
    main()
