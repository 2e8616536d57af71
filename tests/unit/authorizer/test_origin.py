"""Which pages may connect: Origin is compared with the allowed origins before the token is read."""

from __future__ import annotations

import pytest

from tests.fixtures.events import Event, EventFactory, add_headers
from tests.fixtures.functions import Decide
from tests.fixtures.network import LoopbackServer
from tests.fixtures.tokens import Sign

ALLOWED = "https://app.example.com"
EVIL = "https://evil.example"


def allow(origins: str, **others: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("options", [{"ALLOWED_ORIGINS": origins, **others}], ids=["allowed"])


@pytest.fixture
def event(authorizer_event: EventFactory, sign: Sign) -> Event:
    """Return an event with a valid token, so that Origin decides."""
    return authorizer_event(queryStringParameters={"idToken": sign()})


@allow(ALLOWED)
@pytest.mark.parametrize("name", ["Origin", "origin"])
def test_page_of_an_allowed_origin_may_connect(decide: Decide, event: Event, name: str) -> None:
    assert decide(add_headers(event, (name, ALLOWED))) == "Allow"


@allow(f"{ALLOWED}, https://example.com:8443")
@pytest.mark.parametrize("origin", [ALLOWED, "https://example.com:8443"])
def test_there_may_be_several_allowed_origins(decide: Decide, event: Event, origin: str) -> None:
    assert decide(add_headers(event, ("Origin", origin))) == "Allow"


@allow(ALLOWED, ALLOW_MISSING_ORIGIN="true")
@pytest.mark.parametrize("origin", [EVIL, f"{ALLOWED}:443", "https://APP.example.com", "null", ""])
def test_page_of_any_other_origin_is_denied(decide: Decide, event: Event, origin: str) -> None:
    """RFC 6455 section 10.2: it is compared byte for byte."""
    assert decide(add_headers(event, ("Origin", origin))) == "origin_not_allowed"


@pytest.mark.parametrize(
    ("options", "decision"),
    [
        ({"ALLOWED_ORIGINS": ALLOWED}, "missing_origin"),
        ({"ALLOWED_ORIGINS": ALLOWED, "ALLOW_MISSING_ORIGIN": "true"}, "Allow"),
        ({}, "Allow"),
    ],
    ids=str,
)
def test_client_without_an_origin_may_connect_if_that_is_set_or_every_page_may(
    decide: Decide, event: Event, decision: str
) -> None:
    assert decide(event) == decision


def test_every_page_may_connect_if_no_origin_is_listed(decide: Decide, event: Event) -> None:
    assert decide(add_headers(event, ("Origin", EVIL))) == "Allow"


@allow(ALLOWED, ALLOW_MISSING_ORIGIN="true")
@pytest.mark.parametrize("second", ["Origin", "origin"])
def test_second_origin_is_denied(decide: Decide, event: Event, second: str) -> None:
    """RFC 6454 section 7.3: a user agent sends one at most."""
    assert decide(add_headers(event, ("Origin", ALLOWED), (second, ALLOWED))) == "repeated_origin"


@allow(ALLOWED)
def test_token_from_another_origin_is_not_read(decide: Decide, event: Event, jwks: LoopbackServer) -> None:
    event |= {"queryStringParameters": {"idToken": "no token"}}

    assert decide(event) == "missing_origin"
    assert decide(add_headers(event, ("Origin", EVIL))) == "origin_not_allowed"
    assert decide(add_headers(event, *[("Origin", ALLOWED)] * 2)) == "repeated_origin"
    assert jwks.requests == []
