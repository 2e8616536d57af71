"""Synthesizes the stack; needs no account, no credentials, no Docker engine and no network."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import aws_cdk as cdk

from infra.backend_stack import BackendStack
from infra.websocket_api import Credential

T = TypeVar("T")

# RFC 6454 section 6.2: a browser leaves out the scheme's own port. images/authorizer has the same but for that.
ORIGIN = r"(?!https:.*:443$|http:.*:80$)[a-z][a-z0-9+.-]*://[^\s/,?#@*A-Z]+"
SWITCH = {"true": True, "false": False}
CREDENTIALS = {str(credential): credential for credential in Credential}
REMOVAL_POLICIES = {"destroy": cdk.RemovalPolicy.DESTROY, "retain": cdk.RemovalPolicy.RETAIN}


def main() -> None:
    app = cdk.App()
    context = Context(app.node.get_all_context())
    options: dict[str, Any] = {
        "credential": context.chosen("credential", CREDENTIALS, default="querystring"),
        "allowed_origins": context.listed(
            "allowedOrigins", ORIGIN, "an origin as browsers write it, e.g. https://example.com"
        ),
        "allow_missing_origin": context.chosen("allowMissingOrigin", SWITCH, default="false"),
        "required_group": context.written("requiredGroup", r"\S{1,128}", "a group's name"),
        "max_connections_per_user": context.whole("maxConnectionsPerUser"),
        "self_sign_up": context.chosen("selfSignUp", SWITCH, default="false"),
        "removal_policy": context.chosen("removalPolicy", REMOVAL_POLICIES, default="retain"),
        "log_role": context.chosen("apiGatewayLogRole", SWITCH, default="true"),
    }
    context.refuse_others()
    BackendStack(
        app, "WebSocketCognito", description="WebSocket API that lets in users of a Cognito user pool", **options
    )
    app.synth()


class Context:
    """What cdk.json and `--context name=value` say, the latter always as text.

    Nothing is guessed: what makes no sense, is empty or has a name that nobody asks for ends the app, by a SystemExit
    that names the rule. A slip in `allowedOrigins` must not open the API to every page.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._asked: list[str] = []

    def chosen(self, name: str, values: dict[str, T], *, default: str) -> T:
        value = self._get(name)
        value = default if value is None else str(value).lower()
        if value not in values:
            raise SystemExit(f"context {name} is {value!r}, it must be one of {', '.join(values)}")
        return values[value]

    def written(self, name: str, pattern: str, what: str) -> str | None:
        value = self._get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int) or not re.fullmatch(pattern, str(value)):
            raise SystemExit(f"context {name} is {value!r}, it must be {what}")
        return str(value)

    def whole(self, name: str) -> int | None:
        # 9999 connections are counted in 280 KB, and an item of DynamoDB ends at 400 KB.
        value = self.written(name, "[1-9][0-9]{0,3}", "a number from 1 to 9999")
        return None if value is None else int(value)

    def listed(self, name: str, pattern: str, what: str) -> list[str]:
        """A list in cdk.json; `--context` gives it with commas."""
        value = self._get(name)
        if value is None:
            return []
        items = [str(item).strip() for item in (value if isinstance(value, list) else str(value).split(","))]
        for item in items or [""]:
            if not re.fullmatch(pattern, item):
                raise SystemExit(f"context {name} has {item!r}, it must be {what}")
        return items

    def refuse_others(self) -> None:
        """But for the names of the CDK: `@aws-cdk/…`, `aws:cdk:…`, what it looks up by `…:account=…`, and two more."""
        known = {*self._asked, "cli-telemetry", "acknowledged-issue-numbers"}
        for name in self._values:
            if name not in known and not re.search("[:/]", name):
                raise SystemExit(f"context {name} is unknown, there are {', '.join(self._asked)}")

    def _get(self, name: str) -> Any:
        self._asked.append(name)
        return self._values.get(name)


if __name__ == "__main__":
    main()
