"""Synthesize the stack, without an account, credentials, a Docker engine or a network."""

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_cognito as cognito

from infra.backend_stack import BackendStack
from infra.context import read_context
from infra.websocket_api import Credential

DESCRIPTION = "WebSocket API that lets in users of a Cognito user pool"
# "retain" keeps resources, except if their first deployment fails: then they are deleted, so that the next one can succeed.
REMOVAL_POLICIES = {
    "destroy": cdk.RemovalPolicy.DESTROY,
    "retain": cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
}


def main() -> None:
    app = cdk.App()
    settings = read_context(app.node.get_all_context())
    options: dict[str, Any] = {
        **settings,
        "credential": Credential(settings["credential"]),
        "feature_plan": cognito.FeaturePlan[settings["feature_plan"].upper()],
        "removal_policy": REMOVAL_POLICIES[settings["removal_policy"]],
    }
    BackendStack(app, "WebSocketCognito", description=DESCRIPTION, **options)
    app.synth()


if __name__ == "__main__":
    main()
