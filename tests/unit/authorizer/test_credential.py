"""Where the authorizer looks for the ID token, and what it accepts as one; tests/attacks has the variety."""

from __future__ import annotations

import json

import pytest

from benchmarks.user_pool import base64url
from tests.fixtures.events import Event, EventFactory, add_headers
from tests.fixtures.functions import Authorize, Decide, Refusal, get_effect
from tests.fixtures.network import LoopbackServer
from tests.fixtures.tokens import Sign

SUBPROTOCOL = pytest.mark.parametrize("options", [{"CREDENTIAL_MODE": "subprotocol"}], ids=["subprotocol"])
HEADER = "Sec-WebSocket-Protocol"


@pytest.fixture
def bare_event(authorizer_event: EventFactory) -> Event:
    """Return an event without a query string."""
    return authorizer_event(queryStringParameters=None, multiValueQueryStringParameters=None)


# In the query string


def test_token_is_a_parameter_of_the_query_string(authorize: Authorize, sign: Sign) -> None:
    assert get_effect(authorize(sign())) == "Allow"


def test_name_of_the_parameter_is_case_sensitive(decide: Decide, authorizer_event: EventFactory, sign: Sign) -> None:
    assert decide(authorizer_event(queryStringParameters={"idtoken": sign()})) == "missing_token"


def test_token_among_the_subprotocols_is_ignored(decide: Decide, bare_event: Event, sign: Sign) -> None:
    assert decide(add_headers(bare_event, (HEADER, f"echo.v1, idToken.{sign()}"))) == "missing_token"


def test_parameter_given_twice_is_denied(
    decide: Decide, authorizer_event: EventFactory, sign: Sign, jwks: LoopbackServer
) -> None:
    """Its meaning is ambiguous: API Gateway gives the last, a proxy on the way may have checked the first."""
    tokens = ["a.b.c", sign()]
    event = authorizer_event(
        queryStringParameters={"idToken": tokens[-1]}, multiValueQueryStringParameters={"idToken": tokens}
    )

    assert decide(event) == "repeated_idToken"
    assert jwks.requests == []


@pytest.mark.parametrize("parameters", [{}, {"queryStringParameters": None}], ids=["absent", "null"])
def test_event_without_query_string_is_denied(decide: Decide, bare_event: Event, parameters: dict[str, object]) -> None:
    assert decide(bare_event | parameters) == "missing_token"


def test_empty_token_is_denied(refusal: Refusal) -> None:
    assert refusal("") == "missing_token"


# Among the subprotocols


@SUBPROTOCOL
@pytest.mark.parametrize("offer", ["idToken.{}", " a ,\tidToken.{} , b"])
@pytest.mark.parametrize("name", [HEADER, HEADER.lower()])
def test_token_is_one_of_the_subprotocols_that_are_offered(
    decide: Decide, bare_event: Event, sign: Sign, name: str, offer: str
) -> None:
    assert decide(add_headers(bare_event, (name, offer.format(sign())))) == "Allow"


@SUBPROTOCOL
@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        ("echo.v1", "missing_token"),
        ("echo.v1, idToken.", "missing_token"),
        ("echo.v1, idtoken.{}", "missing_token"),
        ("echo.v1 idToken.{}", "missing_token"),
        ("idToken.{0}, idToken.{0}", "repeated_sec-websocket-protocol"),
    ],
)
def test_offer_without_exactly_one_token_is_denied(
    decide: Decide, bare_event: Event, sign: Sign, offer: str, reason: str
) -> None:
    assert decide(add_headers(bare_event, (HEADER, offer.format(sign())))) == reason


@SUBPROTOCOL
@pytest.mark.parametrize("second", [HEADER, HEADER.lower()])
def test_second_header_of_subprotocols_is_denied(decide: Decide, bare_event: Event, sign: Sign, second: str) -> None:
    event = add_headers(bare_event, (HEADER, "echo.v1"), (second, f"idToken.{sign()}"))

    assert decide(event) == "repeated_sec-websocket-protocol"


@SUBPROTOCOL
@pytest.mark.parametrize("headers", [{}, {"headers": None}], ids=["absent", "null"])
def test_event_without_headers_is_denied(decide: Decide, bare_event: Event, headers: dict[str, object]) -> None:
    without = {name: value for name, value in bare_event.items() if name not in {"headers", "multiValueHeaders"}}

    assert decide(without | headers) == "missing_token"


@SUBPROTOCOL
def test_token_in_the_query_string_is_ignored(refusal: Refusal, sign: Sign, jwks: LoopbackServer) -> None:
    assert refusal(sign()) == "missing_token"
    assert jwks.requests == []


# What a token looks like


def test_the_example_event_is_denied_without_asking_for_keys(
    decide: Decide, authorizer_event: EventFactory, jwks: LoopbackServer
) -> None:
    assert decide(authorizer_event()) == "unsupported_algorithm"
    assert jwks.requests == []


@pytest.mark.parametrize("template", ["{0}.{1}", "{0}.{1}.{2}.{2}"])
def test_anything_but_three_segments_is_denied(
    refusal: Refusal, sign: Sign, jwks: LoopbackServer, template: str
) -> None:
    """RFC 7515 section 7.1."""
    assert refusal(template.format(*sign().split("."))) == "malformed_token"
    assert jwks.requests == []


@pytest.mark.parametrize("position", [0, 1], ids=["header", "payload"])
@pytest.mark.parametrize("template", ["{}==", "é{}"])
def test_header_and_payload_have_one_spelling(
    refusal: Refusal, jwks: LoopbackServer, position: int, template: str
) -> None:
    """RFC 4648 section 3.5: only one way to write some octets is canonical."""
    segments = [base64url(b'{"alg": "RS256", "kid": "x"}'), "e30", "AAAA"]
    segments[position] = template.format(segments[position])

    assert refusal(".".join(segments)) == "malformed_token"
    assert jwks.requests == []


@pytest.mark.parametrize("template", ["{}==", "{}é"])
def test_signature_has_one_spelling(refusal: Refusal, sign: Sign, template: str) -> None:
    assert refusal(template.format(sign())) == "bad_signature"


@pytest.mark.parametrize(("characters", "reason"), [(8192, "bad_signature"), (8193, "exceeded_size")])
def test_token_over_8192_characters_is_denied(refusal: Refusal, sign: Sign, characters: int, reason: str) -> None:
    header, _, signature = sign().split(".")
    payload = "A" * (characters - len(f"{header}..{signature}"))

    assert refusal(f"{header}.{payload}.{signature}") == reason


@pytest.mark.parametrize(("octets", "reason"), [(384, "unknown_kid"), (385, "exceeded_size")])
def test_header_over_512_characters_is_denied(refusal: Refusal, octets: int, reason: str) -> None:
    header = json.dumps({"alg": "RS256", "kid": "unknown"}).encode()

    assert refusal(f"{base64url(header.ljust(octets))}.e30.AAAA") == reason


@pytest.mark.parametrize(("characters", "reason"), [(1024, "bad_signature"), (1025, "exceeded_size")])
def test_signature_over_1024_characters_is_denied(refusal: Refusal, sign: Sign, characters: int, reason: str) -> None:
    """1024 characters are a signature of a key of 6144 bits."""
    signing_input = sign().rpartition(".")[0]

    assert refusal(f"{signing_input}.{'A' * characters}") == reason
