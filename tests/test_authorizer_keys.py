"""How the authorizer gets and keeps the user pool's keys: a real HTTP server, and a clock that tests move."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
from joserfc.jwk import ECKey, RSAKey

from tests.conftest import JWKS_PATH, Answer, Authorize, LoopbackServer, Sign, effect, key_set, new_key

GOOD, OTHER = "signing1example=", "other2example="
OUTAGE = Answer(503)
NO_JSON = Answer(body=[b"<html>"])
NO_KEYS = Answer(body=[b'{"keys": ["key"]}'])


class Clock:
    """Stands still unless told otherwise."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(authorizer: ModuleType, jwks: LoopbackServer, clock: Clock) -> Any:
    """The key set of a new execution environment whose time is the clock's."""
    return authorizer.RemoteKeySet(f"{jwks.url}{JWKS_PATH}", clock=clock)


# How often it asks


def test_init_phase_asks_for_no_keys(authorizer: ModuleType, jwks: LoopbackServer) -> None:
    assert authorizer.key_set
    assert jwks.requests == []


def test_many_tokens_cost_one_download(authorize: Authorize, sign: Sign, jwks: LoopbackServer) -> None:
    answers = [authorize(sign()) for _ in range(5)]

    assert [effect(answer) for answer in answers] == ["Allow"] * 5
    assert len(jwks.requests) == 1


def late(body: Iterable[bytes]) -> Iterator[bytes]:
    time.sleep(0.2)
    yield from body


def test_simultaneous_first_uses_share_one_download(keys: Any, jwks: LoopbackServer) -> None:
    jwks.answer = jwks.answer._replace(body=late(jwks.answer.body))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(keys.find, [GOOD] * 8))

    assert None not in found
    assert len(jwks.requests) == 1


def test_unknown_key_ids_cost_one_download_in_ten_seconds(keys: Any, jwks: LoopbackServer, clock: Clock) -> None:
    downloads = []
    for seconds in (0, 9.9, 0.1, 9.9, 0.1):
        clock.now += seconds
        assert keys.find(f"unknown at {clock.now}") is None
        downloads.append(len(jwks.requests))

    assert downloads == [1, 1, 2, 2, 3]


def test_new_key_is_found_once_the_cooldown_is_over(
    keys: Any, jwks: LoopbackServer, clock: Clock, signing_key: RSAKey, other_key: RSAKey
) -> None:
    keys.find(GOOD)
    jwks.answer = key_set(signing_key, other_key)

    assert keys.find(OTHER) is None
    clock.now += 10
    assert keys.find(OTHER).as_dict(private=False) == other_key.as_dict(private=False)


def test_withdrawn_key_is_trusted_for_an_hour_at_most(
    keys: Any, jwks: LoopbackServer, clock: Clock, other_key: RSAKey
) -> None:
    keys.find(GOOD)
    jwks.answer = key_set(other_key)

    clock.now += 3599.9
    assert keys.find(GOOD)
    clock.now += 0.1
    assert keys.find(GOOD) is None


def test_last_good_keys_serve_for_a_day_of_outage(keys: Any, jwks: LoopbackServer, clock: Clock) -> None:
    keys.find(GOOD)
    jwks.answer = OUTAGE

    clock.now += 86399.9
    assert keys.find(GOOD)
    clock.now += 0.1
    with pytest.raises(Exception, match="answered 503"):
        keys.find(GOOD)


def test_outage_is_our_fault_and_not_the_callers(
    authorizer: ModuleType, authorize: Authorize, sign: Sign, jwks: LoopbackServer
) -> None:
    jwks.answer = OUTAGE

    with pytest.raises(authorizer.KeySetUnavailable):
        authorize(sign())


def test_unknown_key_id_cannot_be_judged_during_an_outage(
    authorizer: ModuleType, keys: Any, jwks: LoopbackServer, clock: Clock
) -> None:
    keys.find(GOOD)
    jwks.answer = OUTAGE
    clock.now += 10

    with pytest.raises(authorizer.KeySetUnavailable):
        keys.find(OTHER)
    assert keys.find(GOOD)


@pytest.mark.parametrize("bad", [OUTAGE, NO_JSON, NO_KEYS], ids=["outage", "no JSON", "no keys"])
def test_failed_download_is_not_repeated_before_the_cooldown_is_over(
    authorizer: ModuleType, keys: Any, jwks: LoopbackServer, clock: Clock, bad: Answer
) -> None:
    good, jwks.answer = jwks.answer, bad
    for _ in range(2):
        with pytest.raises(authorizer.KeySetUnavailable):
            keys.find(GOOD)
    assert len(jwks.requests) == 1

    jwks.answer = good
    clock.now += 10
    assert keys.find(GOOD)
    assert keys.find("unknown") is None


# What it takes for an answer


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/plain"}, {"Content-Encoding": "identity"}], ids=str)
def test_keys_are_read_from_the_body_whatever_the_headers_say(
    keys: Any, jwks: LoopbackServer, headers: dict[str, str]
) -> None:
    jwks.answer = jwks.answer._replace(headers=headers)

    assert keys.find(GOOD)


def test_body_in_pieces_is_put_together(keys: Any, jwks: LoopbackServer) -> None:
    (body,) = jwks.answer.body
    pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:1], body[1:100], body[100:], b"")]
    jwks.answer = Answer(headers={"Transfer-Encoding": "chunked"}, body=pieces)

    assert keys.find(GOOD)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        pytest.param(Answer(404), "answered 404", id="not found"),
        pytest.param(Answer(500), "answered 500", id="server error"),
        pytest.param(Answer(302, headers={"Location": JWKS_PATH}), "answered 302", id="redirect"),
        pytest.param(Answer(body=[b" " * 65536, b" "]), "sent over 65536 bytes", id="too much"),
        pytest.param(NO_JSON, "malformed: JSONDecodeError", id="HTML"),
        pytest.param(Answer(body=[b"\xff"]), "malformed: UnicodeDecodeError", id="not text"),
        pytest.param(Answer(body=[b"["] * 65536), "malformed: RecursionError", id="deep nesting"),
        pytest.param(Answer(body=[b"{}"]), "malformed: KeyError", id="empty object"),
        pytest.param(Answer(body=[b"[]"]), "malformed: TypeError", id="array"),
        pytest.param(Answer(body=[b'{"keys": null}']), "malformed: TypeError", id="null for keys"),
        pytest.param(NO_KEYS, "the JWKS ", id="text for a key"),
        pytest.param(
            Answer(body=[b'{"keys": [{"kty": "RSA", "kid": "signing1example="}]}']),
            "the JWKS ",
            id="key without modulus",
        ),
        pytest.param(Answer(body=[b'{"keys": []}']), "no RSA signature key", id="no key"),
        pytest.param(
            Answer(headers={"Content-Encoding": "gzip"}, body=[gzip.compress(b'{"keys": []}')]),
            "malformed: UnicodeDecodeError",
            id="compressed",
        ),
        pytest.param(
            Answer(headers={"Transfer-Encoding": "chunked"}, body=[b"c\r\n{"]), "IncompleteRead", id="cut short"
        ),
    ],
)
def test_bad_answer_makes_the_keys_unavailable(
    authorizer: ModuleType, keys: Any, jwks: LoopbackServer, answer: Answer, fault: str
) -> None:
    jwks.answer = answer

    with pytest.raises(authorizer.KeySetUnavailable, match=fault):
        keys.find(GOOD)
    assert len(jwks.requests) == 1


@pytest.mark.parametrize("bad", [OUTAGE, NO_JSON, NO_KEYS], ids=["outage", "no JSON", "no keys"])
def test_bad_answer_leaves_the_last_good_keys_in_place(
    keys: Any, jwks: LoopbackServer, clock: Clock, bad: Answer
) -> None:
    keys.find(GOOD)
    jwks.answer = bad
    clock.now += 3600

    assert keys.find(GOOD)
    assert len(jwks.requests) == 2


@pytest.mark.parametrize(
    "change", [{"use": "enc"}, {"alg": "RS512"}, {"kty": "oct"}, {"kid": None}, {"kid": 7}, {"kid": ""}], ids=str
)
def test_keys_for_other_purposes_are_left_out(
    authorizer: ModuleType, signing_key: RSAKey, other_key: RSAKey, change: dict[str, object]
) -> None:
    other = {**other_key.as_dict(private=False), **change}

    usable = authorizer.usable_keys(json.dumps({"keys": [other, signing_key.as_dict(private=False)]}).encode())

    assert list(usable) == [GOOD]


def test_key_that_says_no_more_than_it_must_is_used(authorizer: ModuleType, signing_key: RSAKey) -> None:
    """RFC 7517 sections 4.2 and 4.4: use and alg are optional."""
    jwk = {name: value for name, value in signing_key.as_dict(private=False).items() if name not in {"use", "alg"}}

    assert list(authorizer.usable_keys(json.dumps({"keys": [jwk]}).encode())) == [GOOD]


def test_malformed_key_beside_good_ones_is_left_out(authorizer: ModuleType, signing_key: RSAKey) -> None:
    """RFC 7517 section 5: ignore keys that are missing required members."""
    malformed = {"kty": "RSA", "kid": OTHER}

    usable = authorizer.usable_keys(json.dumps({"keys": [malformed, signing_key.as_dict(private=False)]}).encode())

    assert list(usable) == [GOOD]


def test_elliptic_curve_key_is_left_out(authorizer: ModuleType, signing_key: RSAKey) -> None:
    curve = ECKey.generate_key("P-256", parameters={"kid": OTHER}).as_dict(private=False)

    usable = authorizer.usable_keys(json.dumps({"keys": [curve, signing_key.as_dict(private=False)]}).encode())

    assert list(usable) == [GOOD]


@pytest.mark.filterwarnings("ignore:Key size should be:joserfc.errors.SecurityWarning")
def test_key_under_2048_bits_is_left_out(authorizer: ModuleType, signing_key: RSAKey) -> None:
    """RFC 7518 section 3.3."""
    weak = new_key(OTHER, bits=2040).as_dict(private=False)

    usable = authorizer.usable_keys(json.dumps({"keys": [weak, signing_key.as_dict(private=False)]}).encode())

    assert list(usable) == [GOOD]


# How long it waits


HEAD_WITHOUT_END = b"HTTP/1.1 200 OK\r\nX-Filler: " + b"x" * 1000
BODY_WITHOUT_END = b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 1000


@pytest.mark.parametrize("answer", [b"", HEAD_WITHOUT_END, BODY_WITHOUT_END], ids=["nothing", "head", "body"])
def test_server_that_never_comes_to_an_end_is_given_up(
    monkeypatch: pytest.MonkeyPatch, authorizer: ModuleType, answer: bytes
) -> None:
    """However many bytes it sends to be waited for."""
    monkeypatch.setattr(authorizer, "JWKS_SECONDS", 0.2)
    left = threading.Event()

    def drip(server: socket.socket) -> None:
        client, _ = server.accept()
        with client, contextlib.suppress(ConnectionError):
            for position in range(len(answer)):
                client.sendall(answer[position : position + 1])
                time.sleep(0.01)
            while client.recv(1024):
                pass
        left.set()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=[server])
        thread.start()
        keys = authorizer.RemoteKeySet(f"http://127.0.0.1:{server.getsockname()[1]}/")

        with pytest.raises(authorizer.KeySetUnavailable, match="TimeoutError"):
            keys.find(GOOD)

        assert left.wait(10), "the connection was left open"
        thread.join()


def test_refused_connection_makes_the_keys_unavailable(authorizer: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"

    with pytest.raises(authorizer.KeySetUnavailable, match="ConnectionRefusedError"):
        authorizer.RemoteKeySet(url).find(GOOD)
