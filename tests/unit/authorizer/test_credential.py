"""Where the authorizer looks for the ID token, and what it accepts as one."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from benchmarks.user_pool import base64url
from tests.fixtures.events import Event, EventFactory, with_headers
from tests.fixtures.functions import Authorize, Decide, Refusal, effect
from tests.fixtures.network import LoopbackServer
from tests.fixtures.tokens import Sign

QUERYSTRING = pytest.mark.parametrize(
    "options", [{}, {"CREDENTIAL_MODE": ""}, {"CREDENTIAL_MODE": "querystring"}], ids=["unset", "empty", "querystring"]
)
SUBPROTOCOL = pytest.mark.parametrize("options", [{"CREDENTIAL_MODE": "subprotocol"}], ids=["subprotocol"])
HEADER = "Sec-WebSocket-Protocol"
EITHER_FIRST = pytest.mark.parametrize("order", [1, -1], ids=["valid last", "valid first"])


@pytest.fixture
def bare_event(authorizer_event: EventFactory) -> Event:
    """Without a query string."""
    return authorizer_event(queryStringParameters=None, multiValueQueryStringParameters=None)


# In the query string


@QUERYSTRING
def test_token_is_a_parameter_of_the_query_string(authorize: Authorize, sign: Sign) -> None:
    assert effect(authorize(sign())) == "Allow"


@QUERYSTRING
@pytest.mark.parametrize("name", ["idtoken", "IdToken", "idToken ", "token"])
def test_parameter_of_another_name_is_no_token(
    decide: Decide, authorizer_event: EventFactory, sign: Sign, name: str
) -> None:
    assert decide(authorizer_event(queryStringParameters={name: sign()})) == "missing_token"


@QUERYSTRING
def test_token_among_the_subprotocols_is_ignored(decide: Decide, bare_event: Event, sign: Sign) -> None:
    assert decide(with_headers(bare_event, (HEADER, f"echo.v1, idToken.{sign()}"))) == "missing_token"


@EITHER_FIRST
def test_parameter_given_twice_is_denied(
    decide: Decide, authorizer_event: EventFactory, sign: Sign, jwks: LoopbackServer, order: int
) -> None:
    """Its meaning is ambiguous: API Gateway gives the last, a proxy on the way may have checked the first."""
    tokens = ["a.b.c", sign()][::order]
    event = authorizer_event(
        queryStringParameters={"idToken": tokens[-1]}, multiValueQueryStringParameters={"idToken": tokens}
    )

    assert decide(event) == "repeated_idToken"
    assert jwks.requests == []


@pytest.mark.parametrize(
    "parameters",
    [{}, {"queryStringParameters": None}, {"queryStringParameters": {}}],
    ids=["absent", "null", "empty"],
)
@pytest.mark.parametrize("multi_value", [{}, {"multiValueQueryStringParameters": None}], ids=["absent", "null"])
def test_event_without_query_string_is_denied(
    decide: Decide, bare_event: Event, parameters: dict[str, object], multi_value: dict[str, object]
) -> None:
    assert decide(bare_event | parameters | multi_value) == "missing_token"


def test_empty_token_is_denied(refusal: Refusal) -> None:
    assert refusal("") == "missing_token"


# Among the subprotocols


@SUBPROTOCOL
@pytest.mark.parametrize(
    ("name", "offer"),
    [
        (HEADER, "echo.v1, idToken.{}"),
        (HEADER, "idToken.{},echo.v1"),
        (HEADER, "idToken.{}"),
        (HEADER, " a ,\tidToken.{} , b"),
        ("sec-websocket-protocol", "echo.v1, idToken.{}"),
        ("SEC-WEBSOCKET-PROTOCOL", "IdToken.x, idToken.{}"),
    ],
)
def test_token_is_one_of_the_subprotocols_that_are_offered(
    decide: Decide, bare_event: Event, sign: Sign, name: str, offer: str
) -> None:
    assert decide(with_headers(bare_event, (name, offer.format(sign())))) == "Allow"


@SUBPROTOCOL
@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        ("echo.v1", "missing_token"),
        ("", "missing_token"),
        ("echo.v1, idToken.", "missing_token"),
        ("echo.v1, idToken", "missing_token"),
        ("echo.v1, idtoken.{}", "missing_token"),
        ("echo.v1, {}", "missing_token"),
        ("echo.v1 idToken.{}", "missing_token"),
        ('echo.v1, "idToken.{}"', "missing_token"),
        ("echo.v1, idToken. {}", "malformed_token"),
        ("echo.v1, idToken.{};", "bad_signature"),
        ("echo.v1, idToken.idToken.{}", "malformed_token"),
        ("idToken.{0}, idToken.{0}", "repeated_sec-websocket-protocol"),
        ("idToken., idToken.{}", "repeated_sec-websocket-protocol"),
    ],
)
def test_offer_without_exactly_one_token_is_denied(
    decide: Decide, bare_event: Event, sign: Sign, offer: str, reason: str
) -> None:
    assert decide(with_headers(bare_event, (HEADER, offer.format(sign())))) == reason


@SUBPROTOCOL
@pytest.mark.parametrize("second", ["Sec-WebSocket-Protocol", "sec-websocket-protocol"])
@EITHER_FIRST
def test_second_header_of_subprotocols_is_denied(
    decide: Decide, bare_event: Event, sign: Sign, second: str, order: int
) -> None:
    offers = ["echo.v1", f"idToken.{sign()}"][::order]

    reason = decide(with_headers(bare_event, (HEADER, offers[0]), (second, offers[1])))

    assert reason == "repeated_sec-websocket-protocol"


@SUBPROTOCOL
@pytest.mark.parametrize("headers", [{}, {"headers": None}, {"headers": {}}], ids=["absent", "null", "empty"])
def test_event_without_headers_is_denied(decide: Decide, bare_event: Event, headers: dict[str, object]) -> None:
    without = {name: value for name, value in bare_event.items() if name not in {"headers", "multiValueHeaders"}}

    assert decide(without | headers) == "missing_token"


@SUBPROTOCOL
def test_token_in_the_query_string_is_ignored(refusal: Refusal, sign: Sign, jwks: LoopbackServer) -> None:
    assert refusal(sign()) == "missing_token"
    assert jwks.requests == []


@SUBPROTOCOL
@pytest.mark.parametrize("offer", ["idToken.{}", "idToken.{0}, idToken.{0}", "{}", "idToken.{};"])
def test_no_log_record_holds_a_token_that_was_offered(
    decide: Decide,
    bare_event: Event,
    sign: Sign,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    *,
    offer: str,
) -> None:
    caplog.set_level("DEBUG")
    token = sign()

    decide(with_headers(bare_event, (HEADER, offer.format(token))))

    logged = repr([vars(record) for record in caplog.records]) + capsys.readouterr().out
    assert "connection " in logged
    assert [segment for segment in token.split(".") if segment in logged] == []


# What a token looks like


def test_the_example_event_is_denied_without_asking_for_keys(
    decide: Decide, authorizer_event: EventFactory, jwks: LoopbackServer
) -> None:
    assert decide(authorizer_event()) == "unsupported_algorithm"
    assert jwks.requests == []


@pytest.mark.parametrize("token", ["hello", "a.b", "a.b.c.d.e", "..", "é.b.c", "a+b.b/c.c", "\ud800"], ids=ascii)
def test_anything_but_a_token_is_denied(refusal: Refusal, jwks: LoopbackServer, token: str) -> None:
    assert refusal(token) == "malformed_token"
    assert jwks.requests == []


@pytest.mark.parametrize(
    "template",
    [
        "{0}",
        "{0}.{1}",
        "{0}.{1}.{2}.{2}",
        "{0}.{1}.{2}.",
        ".{0}.{1}.{2}",
        ".{1}.{2}",
        "{0}.{1}.{2} {0}.{1}.{2}",
    ],
)
def test_anything_but_three_segments_is_denied(
    refusal: Refusal, sign: Sign, jwks: LoopbackServer, template: str
) -> None:
    """RFC 7515 section 7.1."""
    assert refusal(template.format(*sign().split("."))) == "malformed_token"
    assert jwks.requests == []


def with_trailing_bits(segment: str) -> str:
    """Return the segment with another last character, of which a lax decoder ignores some bits."""
    assert len(segment) % 4
    return segment[:-1] + chr(ord(segment[-1]) + 1)


def with_a_lone_character(segment: str) -> str:
    """Return a segment whose last group of four has one character, so six bits."""
    return segment + "A" * ((1 - len(segment)) % 4)


OTHER_SPELLINGS = pytest.mark.parametrize(
    "respell",
    [
        with_trailing_bits,
        with_a_lone_character,
        "{}==".format,
        "{}\n".format,
        " {}".format,
        "+/{}".format,
        "é{}".format,
    ],
    ids=["trailing bits", "lone character", "padding", "newline", "space", "other alphabet", "not ASCII"],
)


@OTHER_SPELLINGS
@pytest.mark.parametrize("position", [0, 1], ids=["header", "payload"])
def test_header_and_payload_have_one_spelling(
    refusal: Refusal, jwks: LoopbackServer, respell: Callable[[str], str], position: int
) -> None:
    """RFC 4648 section 3.5: only one way to write some octets is canonical."""
    segments = [base64url(b'{"alg": "RS256", "kid": "x"}'), "e30", "AAAA"]
    segments[position] = respell(segments[position])

    assert refusal(".".join(segments)) == "malformed_token"
    assert jwks.requests == []


@OTHER_SPELLINGS
def test_signature_has_one_spelling(
    authorize: Authorize, refusal: Refusal, sign: Sign, respell: Callable[[str], str]
) -> None:
    token = sign()
    signing_input, _, signature = token.rpartition(".")

    assert effect(authorize(token)) == "Allow"
    assert refusal(f"{signing_input}.{respell(signature)}") == "bad_signature"


def test_empty_signature_is_denied(refusal: Refusal, sign: Sign) -> None:
    assert refusal(f"{sign().rpartition('.')[0]}.") == "bad_signature"


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
    """Of a key of 6144 bits."""
    signing_input = sign().rpartition(".")[0]

    assert refusal(f"{signing_input}.{'A' * characters}") == reason
