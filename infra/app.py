"""Synthesizes the stack; needs no account, no credentials, no Docker engine and no network."""

from typing import Any

import aws_cdk as cdk

from infra.backend_stack import BackendStack
from infra.context import read_context
from infra.websocket_api import Credential


def main() -> None:
    app = cdk.App()
    settings = read_context(app.node.get_all_context())
    options: dict[str, Any] = {
        **settings,
        "credential": Credential(settings["credential"]),
        "removal_policy": cdk.RemovalPolicy[settings["removal_policy"].upper()],
    }
    BackendStack(
        app, "WebSocketCognito", description="WebSocket API that lets in users of a Cognito user pool", **options
    )
    app.synth()


if __name__ == "__main__":
    main()
