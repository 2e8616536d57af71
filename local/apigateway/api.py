"""A WebSocket API as the template declares it."""

from __future__ import annotations

from dataclasses import dataclass, field

from local.aws.account import Account
from local.aws.iam import matches

INTEGRATION_SECONDS = 29.0  # the most that API Gateway waits for a function


@dataclass(frozen=True)
class Throttle:
    """At most `rate` requests a second, and up to `burst` at once."""

    rate: float
    burst: float


ACCOUNT_THROTTLE = Throttle(rate=10_000, burst=5_000)


@dataclass(frozen=True)
class Authorizer:
    """An AWS::ApiGatewayV2::Authorizer; `identity_sources` are expressions, e.g. `route.request.querystring.idToken`."""

    function_arn: str
    identity_sources: tuple[str, ...]
    id: str = "authorizer"


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
