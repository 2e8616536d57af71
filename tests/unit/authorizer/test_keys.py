"""How the authorizer downloads and caches the user pool's keys: a real HTTP server, and a clock that tests move."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from benchmarks.user_pool import base64url
from tests.fixtures.functions import Authorize, Clock, get_effect
from tests.fixtures.network import Answer, LoopbackServer
from tests.fixtures.tokens import JWKS_PATH, Sign, build_key_set

GOOD, OTHER = "signing1example=", "other2example="
OUTAGE = Answer(503)
NO_JSON = Answer(body=[b"<html>"])
NO_KEYS = Answer(body=[b'{"keys": ["key"]}'])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(authorizer: ModuleType, jwks: LoopbackServer, clock: Clock) -> Any:
    """Return the cache of a new execution environment, whose keys age by the clock."""
    return authorizer.JwksCache(f"{jwks.url}{JWKS_PATH}", clock=clock)


# When keys are downloaded


def test_init_phase_downloads_nothing(authorizer: ModuleType, jwks: LoopbackServer) -> None:
    authorizer.Authorizer(authorizer.handler.settings)

    assert jwks.requests == []


def test_many_tokens_cost_one_download(authorize: Authorize, sign: Sign, jwks: LoopbackServer) -> None:
    answers = [authorize(sign()) for _ in range(5)]

    assert [get_effect(answer) for answer in answers] == ["Allow"] * 5
    assert len(jwks.requests) == 1


@pytest.mark.parametrize("status", [200, 503], ids=["good", "outage"])
def test_simultaneous_first_uses_share_one_download(
    authorizer: ModuleType, keys: Any, jwks: LoopbackServer, status: int
) -> None:
    jwks.answer = jwks.answer._replace(status=status)
    together = threading.Barrier(8)

    def find(_: int) -> bool:
        together.wait(10)
        try:
            return keys.find(GOOD) is not None
        except authorizer.KeySetUnavailable:
            return False

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(find, range(8)))

    assert found == [status == 200] * 8
    assert len(jwks.requests) == 1


def test_unknown_key_ids_cost_one_download_in_ten_seconds(keys: Any, jwks: LoopbackServer, clock: Clock) -> None:
    downloads = []
    for seconds in (0, 9.9, 0.1, 9.9, 0.1):
        clock.now += seconds
        assert keys.find(f"unknown at {clock.now}") is None
        downloads.append(len(jwks.requests))

    assert downloads == [1, 1, 2, 2, 3]


def test_new_key_is_found_on_first_sight(
    keys: Any, jwks: LoopbackServer, signing_key: RSAKey, other_key: RSAKey
) -> None:
    keys.find(GOOD)
    jwks.answer = build_key_set(signing_key, other_key)

    assert keys.find(OTHER).as_dict(private=False) == other_key.as_dict(private=False)
    assert keys.find(GOOD)
    assert len(jwks.requests) == 2


def test_new_key_is_found_once_the_cooldown_after_a_made_up_one_is_over(
    keys: Any, jwks: LoopbackServer, clock: Clock, signing_key: RSAKey, other_key: RSAKey
) -> None:
    keys.find(GOOD)
    keys.find("made up")
    jwks.answer = build_key_set(signing_key, other_key)

    assert keys.find(OTHER) is None
    clock.now += 10
    assert keys.find(OTHER)


@pytest.mark.parametrize(("seconds", "kid"), [(0, "unknown"), (3600, GOOD)], ids=["unknown key id", "stale keys"])
def test_caller_whose_key_is_cached_does_not_wait_for_the_download_of_another(
    *, keys: Any, jwks: LoopbackServer, clock: Clock, seconds: int, kid: str
) -> None:
    keys.find(GOOD)
    clock.now += seconds
    asked, answer = threading.Event(), threading.Event()

    def hold(body: Iterable[bytes]) -> Iterator[bytes]:
        asked.set()
        assert answer.wait(10)
        yield from body

    jwks.answer = jwks.answer._replace(body=hold(jwks.answer.body))
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(keys.find, kid)
        assert asked.wait(10)
        found = keys.find(GOOD)
        waits = not other.done()
        answer.set()

    assert found
    assert bool(other.result()) == (kid == GOOD)
    assert waits
    assert len(jwks.requests) == 2


def test_withdrawn_key_is_dropped_when_keys_are_stale(
    keys: Any, jwks: LoopbackServer, clock: Clock, other_key: RSAKey
) -> None:
    keys.find(GOOD)
    jwks.answer = build_key_set(other_key)

    clock.now += 3599.9
    assert keys.find(GOOD)
    clock.now += 0.1
    assert keys.find(GOOD) is None


def test_clock_that_was_put_back_does_not_keep_keys_for_longer(
    keys: Any, jwks: LoopbackServer, clock: Clock, other_key: RSAKey
) -> None:
    keys.find(GOOD)
    jwks.answer = build_key_set(other_key)

    clock.now -= 3600
    assert keys.find(GOOD) is None


def test_last_good_keys_serve_for_a_day_of_outage(keys: Any, jwks: LoopbackServer, clock: Clock) -> None:
    keys.find(GOOD)
    jwks.answer = OUTAGE

    clock.now += 86399.9
    assert keys.find(GOOD)
    clock.now += 1
    with pytest.raises(Exception, match="answered 503"):
        keys.find(GOOD)


def test_download_is_tried_again_after_a_second_once_no_key_serves(
    keys: Any, jwks: LoopbackServer, clock: Clock
) -> None:
    """Nobody can connect without keys, so the next download does not wait for the longer cooldown."""
    keys.find(GOOD)
    jwks.answer = OUTAGE
    clock.now += 86400

    for _ in range(2):
        clock.now += 1
        downloads = len(jwks.requests)
        with pytest.raises(Exception, match="answered 503"):
            keys.find(GOOD)
    assert len(jwks.requests) == downloads + 1


def test_outage_is_an_error_and_not_a_denial(
    authorizer: ModuleType, authorize: Authorize, sign: Sign, jwks: LoopbackServer
) -> None:
    jwks.answer = OUTAGE

    with pytest.raises(authorizer.KeySetUnavailable):
        authorize(sign())


def test_unexpected_error_of_a_download_is_no_denial_afterwards(
    authorizer: ModuleType, keys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the system has no thread left."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(authorizer.GetRequest, "start", refuse)
    with pytest.raises(RuntimeError):
        keys.find(GOOD)

    with pytest.raises(authorizer.KeySetUnavailable, match=r" was not downloaded$"):
        keys.find(GOOD)


def test_unknown_key_id_is_an_error_during_an_outage(authorizer: ModuleType, keys: Any, jwks: LoopbackServer) -> None:
    keys.find(GOOD)
    jwks.answer = OUTAGE

    with pytest.raises(authorizer.KeySetUnavailable):
        keys.find(OTHER)
    assert keys.find(GOOD)


@pytest.mark.parametrize("bad", [OUTAGE, NO_JSON, NO_KEYS], ids=["outage", "no JSON", "no keys"])
def test_failed_download_is_not_repeated_before_the_cooldown_is_over(
    authorizer: ModuleType, keys: Any, jwks: LoopbackServer, clock: Clock, bad: Answer
) -> None:
    good, jwks.answer = jwks.answer, bad
    for seconds in (0, 0.9):
        clock.now += seconds
        with pytest.raises(authorizer.KeySetUnavailable):
            keys.find(GOOD)
    assert len(jwks.requests) == 1

    jwks.answer = good
    clock.now += 0.1
    assert keys.find(GOOD)
    assert keys.find("unknown") is None


def test_failed_refresh_is_repeated_every_ten_seconds(keys: Any, jwks: LoopbackServer, clock: Clock) -> None:
    keys.find(GOOD)
    jwks.answer = OUTAGE
    downloads = []
    for seconds in (3600, 9.9, 0.1):
        clock.now += seconds
        assert keys.find(GOOD)
        downloads.append(len(jwks.requests))

    assert downloads == [2, 2, 3]


def test_cooldown_begins_at_the_end_of_a_slow_failure(
    authorizer: ModuleType, keys: Any, jwks: LoopbackServer, clock: Clock
) -> None:
    def slow_down(body: Iterable[bytes]) -> Iterator[bytes]:
        clock.now += 3
        yield from body

    jwks.answer = NO_JSON._replace(body=slow_down(NO_JSON.body))
    for _ in range(2):
        with pytest.raises(authorizer.KeySetUnavailable):
            keys.find(GOOD)

    assert len(jwks.requests) == 1


def test_download_is_given_three_seconds_and_a_refresh_one(
    authorizer: ModuleType, keys: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    join, waits = threading.Thread.join, list[float | None]()

    def record(thread: threading.Thread, timeout: float | None = None) -> None:
        waits.append(timeout)
        join(thread, timeout)

    monkeypatch.setattr(authorizer.GetRequest, "join", record)
    for seconds in (0, 3600, 86400):
        clock.now += seconds
        assert keys.find(GOOD)

    assert waits == [3.0, 1.0, 3.0]


# Which downloads are traced


def test_only_the_download_of_a_sampled_invocation_is_recorded(
    xray: None, authorizer: ModuleType, jwks: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real SDK runs in tests/container/test_tracing.py."""
    recorded: list[str] = []

    @contextmanager
    def in_subsegment(name: str) -> Iterator[None]:
        recorded.append(name)
        yield

    monkeypatch.setattr("aws_xray_sdk.core.xray_recorder.in_subsegment", in_subsegment)

    for trace_id in ("", "Root=1-5759e988-aaaaaaaaaaaaaaaaaaaaaaaa;Sampled=0", "Root=1-5759e988-bbbb;Sampled=1"):
        assert recorded == []
        monkeypatch.setenv("_X_AMZN_TRACE_ID", trace_id)
        assert authorizer.download(f"{jwks.url}{JWKS_PATH}", 3.0)

    assert recorded == ["jwks"]


# Which keys are used


Use = Callable[..., list[str]]


@pytest.fixture
def use(authorizer: ModuleType) -> Use:
    """Return the ids of the keys that are used of a JWK Set with these."""

    def select_ids(*jwks: object) -> list[str]:
        return sorted(authorizer.select_usable_keys(json.dumps({"keys": jwks}).encode()))

    return select_ids


@pytest.fixture
def good(signing_key: RSAKey) -> dict[str, Any]:
    return publish(signing_key)


def publish(key: RSAKey, **changes: object) -> dict[str, Any]:
    return {**key.as_dict(private=False), **changes}


@pytest.mark.parametrize("change", [{"use": "enc"}, {"alg": "RS512"}, {"kty": "oct"}, {"kid": 7}, {"kid": ""}], ids=str)
def test_keys_for_other_purposes_are_ignored(
    use: Use, good: dict[str, Any], other_key: RSAKey, change: dict[str, object]
) -> None:
    assert use(publish(other_key, **change), good) == [GOOD]


def test_key_without_optional_members_is_used(use: Use, good: dict[str, Any]) -> None:
    """RFC 7517 sections 4.2 and 4.4: use and alg are optional."""
    assert use({name: value for name, value in good.items() if name not in {"use", "alg"}}) == [GOOD]


@pytest.mark.parametrize("jwk", [None, {"kid": OTHER, "kty": "RSA"}], ids=["no object", "no modulus"])
def test_malformed_key_beside_good_ones_is_ignored(use: Use, good: dict[str, Any], jwk: object) -> None:
    """RFC 7517 section 5: ignore keys whose members are missing or out of range."""
    assert use(jwk, good) == [GOOD]


def test_key_that_must_not_verify_is_ignored(use: Use, good: dict[str, Any], other_key: RSAKey) -> None:
    """RFC 7517 section 4.3."""
    assert use(publish(other_key, key_ops=["sign"]), good) == [GOOD]


def test_private_key_is_ignored(use: Use, good: dict[str, Any], other_key: RSAKey) -> None:
    """RFC 7517 section 9.2: it is not for publication, as everybody could sign with it."""
    assert use(other_key.as_dict(private=True), good) == [GOOD]


@pytest.mark.filterwarnings("ignore:Key size should be:joserfc.errors.SecurityWarning")
def test_key_under_2048_bits_is_ignored(use: Use, good: dict[str, Any], other_key: RSAKey) -> None:
    """RFC 7518 section 3.3."""
    assert use(publish(other_key, n=base64url(b"\x7f" + b"\xff" * 255)), good) == [GOOD]


def test_jwks_of_over_32_keys_is_refused(authorizer: ModuleType, use: Use, good: dict[str, Any]) -> None:
    assert use(*[{}] * 31, good) == [GOOD]
    with pytest.raises(authorizer.KeySetUnavailable, match=r"^the JWKS has over 32 keys$"):
        use(*[{}] * 32, good)


def test_key_that_is_published_twice_is_used(use: Use, good: dict[str, Any], other_key: RSAKey) -> None:
    assert use(good, publish(other_key), good) == [OTHER, GOOD]


def test_key_id_of_two_different_keys_is_not_used(
    authorizer: ModuleType, use: Use, good: dict[str, Any], other_key: RSAKey
) -> None:
    """Nobody can tell which of the two is meant; keys with other ids serve."""
    double = publish(other_key, kid=GOOD)

    assert use(good, publish(other_key), double) == [OTHER]
    with pytest.raises(authorizer.KeySetUnavailable, match=r"^the JWKS has no RSA signature key$"):
        use(good, double, good)
