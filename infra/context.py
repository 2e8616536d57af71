"""Read and check the stack's context keys. This needs no CDK, so a wrong key or value is refused at once."""

import re
from collections.abc import Mapping
from typing import Any, TypedDict, TypeVar

T = TypeVar("T")

# RFC 6454 section 6.2: browsers leave out the default port. images/authorizer accepts these, and also a default port.
ORIGIN = r"(?!https:.*:443$|http:.*:80$)[a-z][a-z0-9+.-]*://[^\s/,?#@*A-Z]+"
EMAIL = r"[^\s@,]{1,64}@[^\s@,]+\.[^\s@,.]+"
STACK_NAME = "up to 128 letters, digits and hyphens, the first a letter"
SWITCH = {"true": True, "false": False}


class Settings(TypedDict):
    """The settings in the context. BackendStack documents each of them."""

    credential: str
    allowed_origins: list[str]
    allow_missing_origin: bool
    required_group: str | None
    max_connections_per_user: int | None
    self_sign_up: bool
    removal_policy: str
    feature_plan: str
    stack_name: str
    log_role: bool
    alarm_email: str | None


def read_context(values: Mapping[str, Any]) -> Settings:
    """Return the settings of a context.

    Raises:
        SystemExit: a key is unknown or a value is wrong; the message names the key, the value and the rule.
    """
    context = Context(values)
    settings = Settings(
        credential=context.choose("credential", map_to_themselves("querystring", "subprotocol"), default="querystring"),
        allowed_origins=context.split(
            "allowedOrigins", ORIGIN, "an origin as browsers write it, e.g. https://example.com"
        ),
        allow_missing_origin=context.choose("allowMissingOrigin", SWITCH, default="false"),
        required_group=context.match("requiredGroup", r"\S{1,128}", "a group's name"),
        # 9999 slots take 280 KB; DynamoDB's limit for an item is 400 KB.
        max_connections_per_user=context.parse_number("maxConnectionsPerUser", digits=4),
        self_sign_up=context.choose("selfSignUp", SWITCH, default="false"),
        removal_policy=context.choose("removalPolicy", map_to_themselves("destroy", "retain"), default="retain"),
        feature_plan=context.choose("featurePlan", map_to_themselves("lite", "essentials", "plus"), default="lite"),
        stack_name=context.match("stackName", "[A-Za-z][A-Za-z0-9-]{0,127}", STACK_NAME) or "WebSocketCognito",
        log_role=context.choose("apiGatewayLogRole", SWITCH, default="true"),
        alarm_email=context.match("alarmEmail", EMAIL, "an e-mail address"),
    )
    context.refuse_unknown()
    return settings


def map_to_themselves(*values: str) -> dict[str, str]:
    return {value: value for value in values}


class Context:
    """The values in cdk.json and of `--context name=value`, which are always text.

    An unknown key, a wrong value and an empty value end the app with a SystemExit. Nothing is guessed, because a typing
    error in `allowedOrigins` must not open the API to every page.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._read: list[str] = []

    def choose(self, name: str, values: dict[str, T], *, default: str) -> T:
        """Return what the key's value stands for in `values`."""
        value = self._get(name)
        value = default if value is None else str(value).lower()
        if value not in values:
            raise SystemExit(f"context {name} is {value!r}, it must be one of {', '.join(values)}")
        return values[value]

    def match(self, name: str, pattern: str, what: str) -> str | None:
        """Return the key's value if it matches the pattern; None if the key is missing."""
        value = self._get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int) or not re.fullmatch(pattern, str(value)):
            raise SystemExit(f"context {name} is {value!r}, it must be {what}")
        return str(value)

    def parse_number(self, name: str, *, digits: int) -> int | None:
        """Return the key's value if it is a number from 1 with at most this many digits; None if the key is missing."""
        value = self.match(name, rf"[1-9][0-9]{{0,{digits - 1}}}", f"a number from 1 to {10**digits - 1}")
        return None if value is None else int(value)

    def split(self, name: str, pattern: str, what: str) -> list[str]:
        """Return a list, which is a list in cdk.json and separated by commas in `--context`."""
        value = self._get(name)
        if value is None:
            return []
        items = [str(item).strip() for item in (value if isinstance(value, list) else str(value).split(","))]
        for item in items or [""]:
            if not re.fullmatch(pattern, item):
                raise SystemExit(f"context {name} has {item!r}, it must be {what}")
        return items

    def refuse_unknown(self) -> None:
        """Reject unknown keys, except the CDK's own: `@aws-cdk/…`, `aws:cdk:…`, look-ups (`…:account=…`) and two names."""
        known = {*self._read, "cli-telemetry", "acknowledged-issue-numbers"}
        for name in self._values:
            if name not in known and not re.search("[:/]", name):
                raise SystemExit(f"context {name} is unknown, there are {', '.join(self._read)}")

    def _get(self, name: str) -> Any:
        self._read.append(name)
        return self._values.get(name)
