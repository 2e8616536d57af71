"""A WebSocket API as the template declares it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

from local.apigateway.routing import RouteSelection
from local.aws.account import Account
from local.aws.iam import matches
from local.errors import TemplateError

INTEGRATION_SECONDS = 29.0  # API Gateway's maximum timeout of an integration
IDENTITY_SOURCE = re.compile(
    r"route\.request\.(?P<part>header|querystring)\.(?P<name>[^,]+)|(?P<map>stageVariables|context)\.(?P<path>.+)"
)


@dataclass(frozen=True)
class Throttle:
    """A rate limit: `rate` requests a second on average, and up to `burst` at once."""

    rate: float
    burst: float


ACCOUNT_THROTTLE = Throttle(rate=10_000, burst=5_000)


@dataclass(frozen=True)
class Authorizer:
    """An AWS::ApiGatewayV2::Authorizer; `identity_sources` are expressions, e.g. `route.request.querystring.idToken`.

    Raises:
        TemplateError: an identity source has none of the forms that API Gateway knows.
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
        two_way: the route sends the body of the function's response to the client.
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
        deployed: whether the stage has a deployment; without one it refuses every handshake.
        permissions: from AWS::Lambda::Permission, pairs of a function's ARN and the pattern of the routes and authorizers
            that may invoke it; None allows all.
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
        """The parsed route selection expression. Raises TemplateError if it cannot be evaluated locally."""
        return RouteSelection.parse(self.route_selection_expression)

    def may_invoke(self, function_arn: str, source: str) -> bool:
        """Return whether API Gateway may invoke the function for this route or authorizer."""
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
