"""A WebSocket API as the template declares it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

from local.apigateway.routing import RouteSelection
from local.aws.account import Account
from local.aws.iam import matches
from local.errors import TemplateError

INTEGRATION_SECONDS = 29.0  # the most that API Gateway waits for a function
IDENTITY_SOURCE = re.compile(
    r"route\.request\.(?P<part>header|querystring)\.(?P<name>[^,]+)|(?P<map>stageVariables|context)\.(?P<path>.+)"
)


@dataclass(frozen=True)
class Throttle:
    """At most `rate` requests a second, and up to `burst` at once."""

    rate: float
    burst: float


ACCOUNT_THROTTLE = Throttle(rate=10_000, burst=5_000)


@dataclass(frozen=True)
class Authorizer:
    """An AWS::ApiGatewayV2::Authorizer; `identity_sources` are expressions, e.g. `route.request.querystring.idToken`.

    Raises:
        TemplateError: API Gateway does not know an identity source.
    """

    function_arn: str
    identity_sources: tuple[str, ...]
    id: str = "authorizer"

    def __post_init__(self) -> None:
        for source in self.identity_sources:
            if not IDENTITY_SOURCE.fullmatch(source):
                raise TemplateError(
                    f"identity source {source} cannot be evaluated locally; it must be route.request.header.NAME,"
                    " route.request.querystring.NAME, stageVariables.NAME or context.NAME"
                )


@dataclass(frozen=True)
class Route:
    """An AWS::ApiGatewayV2::Route with its integration.

    Attributes:
        two_way: the function's response body goes back to the client.
    """

    key: str
    function_arn: str
    authorizer: Authorizer | None = None
    two_way: bool = False
    timeout_seconds: float = INTEGRATION_SECONDS
    throttle: Throttle = ACCOUNT_THROTTLE


@dataclass(frozen=True)
class Api:
    """A WebSocket API with its one stage.

    Attributes:
        deployed: a stage without a deployment refuses every handshake.
        permissions: function ARN and pattern of who may invoke it, from AWS::Lambda::Permission; None allows everybody.
    """

    id: str
    stage: str
    route_selection_expression: str
    routes: dict[str, Route]
    stage_variables: dict[str, str] = field(default_factory=dict)
    deployed: bool = True
    permissions: frozenset[tuple[str, str]] | None = None
    account: Account = Account()  # noqa: RUF009 - frozen

    @cached_property
    def route_selection(self) -> RouteSelection:
        """The parsed route selection expression. TemplateError if it cannot be evaluated here."""
        return RouteSelection.parse(self.route_selection_expression)

    def may_invoke(self, function_arn: str, source: str) -> bool:
        """Return whether API Gateway may call the function for this route or authorizer."""
        return self.permissions is None or any(
            allowed == function_arn and matches(pattern, source) for allowed, pattern in self.permissions
        )

    @property
    def domain_name(self) -> str:
        return f"{self.id}.execute-api.{self.account.region}.{self.account.url_suffix}"

    @property
    def arn(self) -> str:
        return (
            f"arn:{self.account.partition}:execute-api:{self.account.region}:{self.account.id}:{self.id}/{self.stage}"
        )
