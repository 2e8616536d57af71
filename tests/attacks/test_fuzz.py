"""Random tokens and events: a sound one gets an Allow, all others get the exact expected Deny."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from joserfc.jwk import RSAKey

from benchmarks.user_pool import APP_CLIENT_ID, ISSUER, KID, SUB, base64url, cognito_claims
from tests.attacks.corpus import FORGED
from tests.attacks.forgery import ORIGIN, SUBPROTOCOLS, build_event_with_token, sign_rs256
from tests.attacks.handshakes import EVIL
from tests.fixtures import ROOT
from tests.fixtures.events import Event, load_event
from tests.fixtures.functions import AUTHORIZER
from tests.fixtures.log_lines import read_lines
from tests.fixtures.network import LoopbackServer
from tests.fixtures.tokens import JWKS_ENDPOINT, Sign

set_hypothesis_home_dir(ROOT / ".pytest_cache" / "hypothesis")
FUZZ = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FUZZ_UNREAD_TEXT = settings(FUZZ, max_examples=50)  # for texts that the authorizer copies and never reads
BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
REASONS = {case.expected for case in FORGED}
REASON_CLASSES = {"credential", "signature", "claims", "expired", "policy"}
METRIC_MEMBERS = {"FunctionName", "Refused", "_aws"}
IDS = {"connectionId": "connectionId", "apiRequestId": "requestId", "routeKey": "routeKey"}


def generate_containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)


# Two levels, because the authorizer looks at no deeper one. `st.recursive` needs twice the time.
SCALAR = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
)
JSON: st.SearchStrategy[Any] = SCALAR | generate_containers(SCALAR) | generate_containers(generate_containers(SCALAR))
HEADER = {"kid": KID, "alg": "RS256"}
TEXT = st.text(st.characters(), max_size=20)  # with lone surrogates


def sign_jws(header: dict[str, Any] | str | bytes, payload: dict[str, Any] | bytes, key: RSAKey) -> str:
    """Return a JWS with a valid RS256 signature."""
    parts = [part if isinstance(part, str | bytes) else json.dumps(part) for part in (header, payload)]
    signing_input = ".".join(base64url(part if isinstance(part, bytes) else part.encode()) for part in parts)
    return f"{signing_input}.{base64url(sign_rs256(key, signing_input.encode()))}"


class CheckedAuthorizer:
    """An authorizer whose answers and log lines are checked completely."""

    def __init__(
        self,
        handler: Callable[[Event, None], Any],
        caplog: pytest.LogCaptureFixture,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self._handler = handler
        self._caplog = caplog
        self._capsys = capsys

    def allows(self, event: Event) -> bool:
        self._caplog.clear()
        self._capsys.readouterr()
        answer = self._handler(event, None)
        assert [record.exc_info for record in self._caplog.records if record.exc_info] == []
        (line,) = read_lines(self._caplog, self._capsys)
        message, level = line.pop("message"), line.pop("level")
        allowed = bool(message == "connection accepted")
        if allowed:
            assert (level, line["Refused"]) == ("INFO", 0)
            assert line.pop("sub") == answer["principalId"] == answer["context"].pop("userId")
            assert re.fullmatch(r"\d+", answer["context"].pop("exp"))
        else:
            assert (message, level, line["Refused"]) == ("connection rejected", "WARNING", 1)
            assert answer["principalId"] == "anonymous"
            assert line.pop("reason") in REASONS
            assert line.pop("ReasonClass") in REASON_CLASSES
        request = event["requestContext"]
        ids = {name: request.get(member) for name, member in IDS.items()}
        assert {name: value for name, value in line.items() if name not in METRIC_MEMBERS} == ids
        assert set(answer) == {"principalId", "policyDocument", "context"}
        assert answer["context"] == {}
        effect = "Allow" if allowed else "Deny"
        statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": event["methodArn"]}
        assert answer["policyDocument"] == {"Version": "2012-10-17", "Statement": [statement]}
        return allowed


@pytest.fixture
def checked(authorizer: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> CheckedAuthorizer:
    caplog.set_level(logging.DEBUG)
    return CheckedAuthorizer(authorizer.handler, caplog, capsys)


@pytest.fixture
def strict(
    imported_authorizer: ModuleType,
    jwks: LoopbackServer,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> CheckedAuthorizer:
    """Create an authorizer that expects the token as a subprotocol, and allows one origin."""
    caplog.set_level(logging.DEBUG)
    strictness = {"CREDENTIAL_MODE": "subprotocol", "ALLOWED_ORIGINS": ORIGIN}
    settings = imported_authorizer.Settings.read({**AUTHORIZER, **strictness, JWKS_ENDPOINT: jwks.url})
    return CheckedAuthorizer(imported_authorizer.Authorizer(settings), caplog, capsys)


# Tokens


@FUZZ
@given(token=TEXT | st.text(f"{BASE64URL}.=", max_size=200))
def test_random_text_is_denied(checked: CheckedAuthorizer, token: str) -> None:
    assert not checked.allows(build_event_with_token(token))


@FUZZ
@given(segments=st.lists(st.binary(max_size=100), min_size=1, max_size=5))
def test_random_segments_are_denied(checked: CheckedAuthorizer, segments: list[bytes]) -> None:
    assert not checked.allows(build_event_with_token(".".join(map(base64url, segments))))


EDITS = st.tuples(
    st.sampled_from(["insert", "replace", "delete", "swap", "repeat"]),
    st.floats(0, 1),
    st.sampled_from(f"{BASE64URL}.=") | st.characters(),
)


def apply_edits(token: str, edits: list[tuple[str, float, str]]) -> str:
    for kind, where, character in edits:
        at = int(where * (len(token) - 1))
        before, here, after = token[:at], token[at], token[at + 1 :]
        token = {
            "insert": before + character + here + after,
            "replace": before + character + after,
            "delete": before + after,
            "swap": before + after[:1] + here + after[1:],
            "repeat": before + here + here + after,
        }[kind]
    return token


@FUZZ
@given(edits=st.lists(EDITS, min_size=1, max_size=3))
def test_edited_token_is_denied(checked: CheckedAuthorizer, sign: Sign, edits: list[tuple[str, float, str]]) -> None:
    token = sign()
    forged = apply_edits(token, edits)
    assume(forged != token)

    assert not checked.allows(build_event_with_token(forged))


NAMES = ["alg", "kid", "typ", "cty", "crit", "b64", "zip", "enc", "jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256"]
HEADERS = st.dictionaries(
    st.sampled_from(NAMES[:3]) | st.sampled_from(NAMES) | st.text(max_size=8),
    st.sampled_from(["RS256", "none", "HS256", KID, "JWT", "jwt", "at+jwt"]) | JSON,
    max_size=3,
)


@FUZZ
@given(header=HEADERS, dropped=st.sets(st.sampled_from(["alg", "kid"])))
@example(header={}, dropped=set())
@example(header={"typ": "Jwt"}, dropped=set())
def test_only_a_header_as_cognito_writes_it_is_allowed(
    checked: CheckedAuthorizer, signing_key: RSAKey, header: dict[str, Any], dropped: set[str]
) -> None:
    header = {name: value for name, value in HEADER.items() if name not in dropped} | header
    typ = header.get("typ", "JWT")
    sound = {**header, "typ": "JWT"} == {**HEADER, "typ": "JWT"} and isinstance(typ, str) and typ.upper() == "JWT"

    assert checked.allows(build_event_with_token(sign_jws(header, cognito_claims(), signing_key))) == sound


@FUZZ
@given(
    header=st.binary(max_size=100)
    | JSON.map(json.dumps)
    | st.lists(st.sampled_from(NAMES), max_size=4).map(json.dumps)
    | st.lists(st.sampled_from(NAMES), max_size=4).map(" ".join).map(json.dumps)
)
def test_random_header_is_denied(checked: CheckedAuthorizer, signing_key: RSAKey, header: bytes | str) -> None:
    assert not checked.allows(build_event_with_token(sign_jws(header, cognito_claims(), signing_key)))


CLAIMS = st.dictionaries(
    st.sampled_from(["iss", "aud", "sub", "token_use", "exp", "iat", "nbf", "auth_time", "jti"]) | st.text(max_size=8),
    st.sampled_from([ISSUER, APP_CLIENT_ID, "id", SUB, [ISSUER], [APP_CLIENT_ID], ["id"], 4102444800]) | JSON,
    max_size=3,
)


def is_date(value: Any, *, earliest: float, latest: float) -> bool:
    return type(value) in {int, float} and earliest <= value <= latest


def are_sound(claims: Mapping[str, Any]) -> bool:
    now, last = time.time(), 253402300799
    return (
        (claims.get("iss"), claims.get("aud"), claims.get("token_use")) == (ISSUER, APP_CLIENT_ID, "id")
        and isinstance(claims.get("sub"), str)
        and re.fullmatch(r"[\x20-\x7e]{1,255}", claims["sub"]) is not None
        and is_date(claims.get("exp"), earliest=now, latest=last)
        and is_date(claims.get("iat", now), earliest=0, latest=now + 5)
        and is_date(claims.get("nbf", now), earliest=0, latest=now + 5)
        and is_date(claims.get("auth_time", now), earliest=0, latest=last)
        and isinstance(claims.get("jti", ""), str)
    )


@FUZZ
@given(changes=CLAIMS, dropped=st.sets(st.sampled_from([*cognito_claims()]), max_size=2))
@example(changes={}, dropped=set())
def test_only_sound_claims_are_allowed(
    checked: CheckedAuthorizer, signing_key: RSAKey, changes: dict[str, Any], dropped: set[str]
) -> None:
    claims = {name: value for name, value in cognito_claims().items() if name not in dropped} | changes

    assert checked.allows(build_event_with_token(sign_jws(HEADER, claims, signing_key))) == are_sound(claims)


@FUZZ
@given(payload=st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value).encode()))
def test_random_payload_is_denied(checked: CheckedAuthorizer, signing_key: RSAKey, payload: bytes) -> None:
    assert not checked.allows(build_event_with_token(sign_jws(HEADER, payload, signing_key)))


# Events


def generate_maps(names: list[str]) -> tuple[st.SearchStrategy[object], st.SearchStrategy[object]]:
    """Return strategies for API Gateway's two maps of headers or parameters: with the last and with all values."""
    name = st.sampled_from(names) | TEXT
    return (
        st.none() | st.dictionaries(name, TEXT, max_size=4),
        st.none() | st.dictionaries(name, st.lists(TEXT, min_size=1, max_size=3), max_size=4),
    )


QUERY, MULTI_VALUE_QUERY = generate_maps(["idToken"])


@FUZZ
@given(query=QUERY, multi_value=MULTI_VALUE_QUERY)
def test_random_query_string_is_denied_without_an_error(
    checked: CheckedAuthorizer, query: object, multi_value: object
) -> None:
    assert not checked.allows(
        load_event("authorizer") | {"queryStringParameters": query, "multiValueQueryStringParameters": multi_value}
    )


Path = tuple[str, ...]


def list_paths(members: Mapping[str, Any], above: Path = ()) -> Iterator[Path]:
    for name, value in members.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from list_paths(value, (*above, name))


def is_text_at(path: Path) -> bool:
    value: Any = load_event("authorizer")
    for name in path:
        value = value[name]
    return isinstance(value, str)


PATHS = [path for path in list_paths(load_event("authorizer")) if path != ("methodArn",)]


def set_member(event: Event, path: Path, value: object) -> None:
    """Set the member at the path. Do nothing if an earlier change replaced an object on the path."""
    *above, name = path
    members: Any = event
    for step in above:
        members = members.get(step) if isinstance(members, dict) else None
    if isinstance(members, dict):
        members[name] = value


@FUZZ
@given(changes=st.dictionaries(st.sampled_from(PATHS), JSON, max_size=4))
@example(changes={})
def test_impossible_event_is_not_allowed_without_the_token(
    checked: CheckedAuthorizer, sign: Sign, changes: dict[Path, object]
) -> None:
    event = build_event_with_token(token := sign())
    for path, value in changes.items():
        set_member(event, path, value)
    allowed = False

    with suppress(AttributeError, LookupError, TypeError, ValueError):
        allowed = checked.allows(event)

    assert not allowed or event["queryStringParameters"]["idToken"] == token


OTHER_TEXTS = [path for path in PATHS if is_text_at(path) and path[0] not in {"headers", "queryStringParameters"}]


@FUZZ_UNREAD_TEXT
@given(changes=st.dictionaries(st.sampled_from(OTHER_TEXTS), TEXT, max_size=4), good=st.booleans())
def test_other_text_in_the_event_does_not_change_the_answer(
    checked: CheckedAuthorizer, sign: Sign, changes: dict[Path, str], *, good: bool
) -> None:
    event = build_event_with_token(sign() if good else "forged")
    for path, value in changes.items():
        set_member(event, path, value)

    assert checked.allows(event) == good


@FUZZ_UNREAD_TEXT
@given(method_arn=st.text(), good=st.booleans())
def test_policy_is_for_the_method_of_the_event_only(
    checked: CheckedAuthorizer, sign: Sign, method_arn: str, good: bool
) -> None:
    assert checked.allows(build_event_with_token(sign() if good else "forged", methodArn=method_arn)) == good


HEADER_NAMES = [SUBPROTOCOLS, SUBPROTOCOLS.lower(), "Origin", "origin", "ORIGIN"]
HEADER_MAP, MULTI_VALUE_HEADER_MAP = generate_maps(HEADER_NAMES)


@FUZZ
@given(headers=HEADER_MAP, multi_value=MULTI_VALUE_HEADER_MAP)
def test_random_headers_are_denied_without_an_error(
    strict: CheckedAuthorizer, headers: object, multi_value: object
) -> None:
    assert not strict.allows(load_event("authorizer") | {"headers": headers, "multiValueHeaders": multi_value})


SENT_HEADERS = st.lists(
    st.tuples(
        st.sampled_from(HEADER_NAMES) | TEXT,
        st.sampled_from(
            ["echo.v1, idToken.{}", "idToken.{},echo.v1", "{}", "echo.v1", "idToken.", ORIGIN, EVIL, "null"]
        )
        | TEXT,
    ),
    max_size=4,
)


@FUZZ
@given(sent=SENT_HEADERS)
@example(sent=[(SUBPROTOCOLS, "echo.v1, idToken.{}"), ("Origin", ORIGIN)])
def test_handshake_needs_one_allowed_origin_and_one_sound_token(
    strict: CheckedAuthorizer, sign: Sign, sent: list[tuple[str, str]]
) -> None:
    token = sign()
    values: dict[str, list[str]] = {}
    for name, template in sent:
        values.setdefault(name, []).append(template.replace("{}", token))
    origins, offers = (
        [value for name in values if name.lower() == header for value in values[name]]
        for header in ("origin", SUBPROTOCOLS.lower())
    )
    names = [name.strip() for offered in offers for name in offered.split(",")]
    tokens = [name for name in names if name.startswith("idToken.")]
    sound = origins == [ORIGIN] and len(offers) == 1 and tokens == [f"idToken.{token}"]

    headers = {name: each[-1] for name, each in values.items()}
    event = load_event("authorizer") | {"headers": headers, "multiValueHeaders": values}

    assert strict.allows(event) == sound
