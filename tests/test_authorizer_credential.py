"""Where the authorizer looks for the ID token, and what it takes for one."""

from __future__ import annotations

import pytest

from tests.conftest import (
    Authorize,
    Decide,
    Event,
    EventFactory,
    LoopbackServer,
    Refusal,
    Sign,
    base64url,
    effect,
    with_headers,
)

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
def test_token_among_the_subprotocols_is_not_looked_at(decide: Decide, bare_event: Event, sign: Sign) -> None:
    assert decide(with_headers(bare_event, (HEADER, f"echo.v1, idToken.{sign()}"))) == "missing_token"


@EITHER_FIRST
def test_parameter_given_twice_is_denied(
    decide: Decide, authorizer_event: EventFactory, sign: Sign, jwks: LoopbackServer, order: int
) -> None:
    """Which one is meant? API Gateway gives the last, a proxy on the way may have looked at the first."""
    tokens = ["a.b.c", sign()][::order]
    event = authorizer_event(
        queryStringParameters={"idToken": tokens[-1]}, multiValueQueryStringParameters={"idToken": tokens}
    )

    assert decide(event) == "repeated_idToken"
    assert jwks.requests == []


@pytest.mark.parametrize(
    "parameters",
    [{}, {"queryStringParameters": None}, {"queryStringParameters": []}, {"queryStringParameters": "idToken"}],
    ids=str,
)
@pytest.mark.parametrize("several", [{}, {"multiValueQueryStringParameters": None}], ids=["absent", "null"])
def test_event_without_query_string_is_denied(
    decide: Decide, bare_event: Event, parameters: dict[str, object], several: dict[str, object]
) -> None:
    assert decide(bare_event | parameters | several) == "missing_token"


@pytest.mark.parametrize("token", [None, "", [], {}, 0, False], ids=repr)
def test_absent_token_is_denied(refusal: Refusal, token: object) -> None:
    assert refusal(token) == "missing_token"


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
        ("echo.v1, idToken.{};", "malformed_token"),
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
@pytest.mark.parametrize("value", [None, [], ["echo.v1"], {"idToken.": 1}, 1], ids=repr)
def test_subprotocols_that_are_no_text_hold_no_token(decide: Decide, bare_event: Event, value: object) -> None:
    assert decide(bare_event | {"headers": {HEADER: value}}) == "missing_token"


@SUBPROTOCOL
@pytest.mark.parametrize("headers", [{}, {"headers": None}, {"headers": []}], ids=str)
def test_event_without_headers_is_denied(decide: Decide, bare_event: Event, headers: dict[str, object]) -> None:
    without = {name: value for name, value in bare_event.items() if name not in {"headers", "multiValueHeaders"}}

    assert decide(without | headers) == "missing_token"


@SUBPROTOCOL
def test_token_in_the_query_string_is_not_looked_at(refusal: Refusal, sign: Sign, jwks: LoopbackServer) -> None:
    assert refusal(sign()) == "missing_token"
    assert jwks.requests == []


@SUBPROTOCOL
@pytest.mark.parametrize("offer", ["idToken.{}", "idToken.{0}, idToken.{0}", "{}", "idToken.{};"])
def test_no_log_record_holds_a_token_that_was_offered(
    decide: Decide, bare_event: Event, sign: Sign, caplog: pytest.LogCaptureFixture, offer: str
) -> None:
    caplog.set_level("DEBUG")
    token = sign()

    decide(with_headers(bare_event, (HEADER, offer.format(token))))

    logged = repr([vars(record) for record in caplog.records])
    assert "connection " in logged
    assert [segment for segment in token.split(".") if segment in logged] == []


# What a token looks like


def test_the_example_event_is_denied_without_asking_for_keys(
    decide: Decide, authorizer_event: EventFactory, jwks: LoopbackServer
) -> None:
    assert decide(authorizer_event()) == "unsupported_algorithm"
    assert jwks.requests == []


@pytest.mark.parametrize(
    "token",
    [1, ["a.b.c"], {"a": "b.c.d"}, "a.b", "a.b.c.d.e", "a.b.", "a.b.c=", "a.b.c\n", " a.b.c", "é.b.c", "a+b.b/c.c"],
    ids=repr,
)
def test_anything_but_one_compact_jws_is_denied(refusal: Refusal, token: object) -> None:
    """RFC 7515 section 7.1: three segments of base64url without padding."""
    assert refusal(token) == "malformed_token"


@pytest.mark.parametrize(
    "token", ["A.e30.AAAA", "e30.A.AAAA", "e30.e30.A", "e31.e30.AAAA", "e30.e31.AAAA", "e30.e30.AB"]
)
def test_segment_that_no_encoder_writes_is_denied(refusal: Refusal, token: str) -> None:
    """RFC 4648 section 3.5: of the ways to write the same octets only one is canonical."""
    assert refusal(token) == "malformed_token"


def test_valid_token_is_valid_in_one_spelling_only(authorize: Authorize, refusal: Refusal, sign: Sign) -> None:
    token = sign()
    last = token[-1]  # of 342 characters for 256 octets: four bits of it are padding
    other = chr(ord(last) + 1)

    assert effect(authorize(token)) == "Allow"
    assert refusal(token[:-1] + other) == "malformed_token"


@pytest.mark.parametrize(("characters", "reason"), [(8192, "bad_signature"), (8193, "exceeded_size")])
def test_token_over_8192_characters_is_denied_unread(
    refusal: Refusal, sign: Sign, characters: int, reason: str
) -> None:
    header, _, signature = sign().split(".")
    payload = "A" * (characters - len(f"{header}..{signature}"))

    assert refusal(f"{header}.{payload}.{signature}") == reason


def test_header_over_512_bytes_is_denied_unread(refusal: Refusal) -> None:
    assert refusal(f"{base64url(b' ' * 513)}.e30.AAAA") == "malformed_token"
