"""A JWKS endpoint misbehaves. Forged tokens stay denied; valid ones stay allowed while a cached key serves."""

from __future__ import annotations

import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from benchmarks.user_pool import base64url, cognito_claims
from tests.attacks.chaos import (
    FAULTY,
    SHORT_SECONDS,
    SOUND,
    TICK_SECONDS,
    TIMEOUT,
    UNENDING,
    Chaos,
    ChaosServer,
    Keys,
    answer_with,
    build_response,
    good,
    never_accept,
)
from tests.attacks.signatures import SHA256_PREFIX, encode_emsa
from tests.fixtures.emulator import Emulate, Emulator
from tests.fixtures.events import EventFactory, load_event
from tests.fixtures.functions import AUTHORIZER, Clock, get_effect
from tests.fixtures.network import LoopbackServer, find_free_port
from tests.fixtures.tls import Certificate, TlsServer
from tests.fixtures.tokens import JWKS_ENDPOINT, Sign, build_key_set, generate_key

pytestmark = pytest.mark.filterwarnings("ignore:Key size should be:joserfc.errors.SecurityWarning")

PATIENCE_SECONDS = 5.0
RETRY_SECONDS, COOLDOWN_SECONDS, STALE_SECONDS, EXPIRED_SECONDS = 1, 10, 3600, 86400
outage = answer_with(build_response(b"", 503))

Ending = str | tuple[str, ...]
TABLES = SOUND | FAULTY | UNENDING
ALL_ROWS = [pytest.param(*row, id=name) for name, row in TABLES.items()]
# What a failed download leaves in the cache depends on the error alone, so one row for each error is enough there.
FIRST_ROWS = {ending: pytest.param(chaos, ending, id=name) for name, (chaos, ending) in reversed(TABLES.items())}


@pytest.fixture(scope="module")
def keys(signing_key: RSAKey, other_key: RSAKey) -> Keys:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weak = generate_key("weak3example=", 1024)
    curve = ECKey.generate_key("P-256", parameters={"kid": "curve4example="})
    secret = OctKey.generate_key(256, parameters={"kid": "secret5example="})
    return Keys(signing_key, other_key, generate_key("attacker6example="), weak, curve, secret)


@pytest.fixture(scope="module")
def forged_tokens(keys: Keys, sign: Sign) -> list[str]:
    """Return tokens that must be denied with every JWK Set."""
    named = {"kid": keys.signing.kid}
    attacker = RSAKey.import_key(keys.attacker.as_pem(private=True))
    others: dict[str, RSAKey | ECKey | OctKey] = {
        "RS512": attacker,
        "PS256": attacker,
        "ES256": keys.curve,
        "HS256": keys.secret,
    }
    signing_input = sign().rpartition(".")[0]
    encoded = encode_emsa(SHA256_PREFIX + sha256(signing_input.encode()).digest(), 256)
    return [
        sign(key=keys.attacker),
        sign(key=keys.attacker, header=named),
        sign(key=keys.attacker, header={"kid": str(keys.signing.kid).swapcase()}),
        sign(key=keys.attacker, header={"kid": ""}),
        sign(key=keys.attacker, header={"kid": None}),
        sign(key=keys.weak, header=named),
        sign(header={"alg": "none"}).rpartition(".")[0] + ".",
        *(jwt.encode({"alg": alg, **named}, cognito_claims(), key, algorithms=[alg]) for alg, key in others.items()),
        f"{signing_input}.{base64url(encoded)}",  # by a key with e=1, an encoded message is its own signature
    ]


@pytest.fixture
def server(keys: Keys) -> Iterator[ChaosServer]:
    """Start the user pool's JWKS endpoint. Fail if a redirect is followed."""
    with LoopbackServer(build_key_set(keys.attacker)) as elsewhere:
        with ChaosServer(keys, elsewhere.url) as server:
            yield server
        assert elsewhere.requests == []


class Environment:
    """The authorizer in a new execution environment, with a clock that tests set."""

    def __init__(self, authorizer: Any, server: ChaosServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.authorizer = authorizer
        self.server = server
        self.clock = Clock()
        self._monkeypatch = monkeypatch
        self._before = set(threading.enumerate())
        self.download_from(server.url)

    def download_from(self, url: str) -> None:
        settings = self.authorizer.Settings.read({**AUTHORIZER, JWKS_ENDPOINT: url})
        self._handler = self.authorizer.Authorizer(settings, self.clock)

    def set_timeouts(self, total: float, *, refresh: float = 60.0, connect: float = 1.4) -> None:
        """Set the timeouts of a download."""
        limits = {"JWKS_SECONDS": total, "JWKS_REFRESH_SECONDS": refresh, "JWKS_CONNECT_SECONDS": connect}
        for name, seconds in limits.items():
            self._monkeypatch.setattr(self.authorizer, name, seconds)

    def switch_to(self, chaos: Chaos, ending: Ending) -> None:
        """Replace the server's behaviour, and set a short timeout if the download never ends."""
        if TIMEOUT in ending:
            self.set_timeouts(SHORT_SECONDS, refresh=SHORT_SECONDS)
        else:
            self.set_timeouts(3.0, refresh=3.0)
        self.server.switch_to(chaos)

    def connect(self, token: str) -> str:
        """Return what a client with this token gets: Allow, Deny, or the message of the error."""
        try:
            return get_effect(self._handler(load_event("authorizer", queryStringParameters={"idToken": token}), None))
        except self.authorizer.KeySetUnavailable as error:
            return str(error)

    def find_leftovers(self) -> list[str]:
        """Wait until all threads and connections of downloads have ended; return those that remain after the timeout."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            new_threads = set(threading.enumerate()) - self._before
            threads = [each.name for each in new_threads if isinstance(each, self.authorizer.GetRequest)]
            found = threads + [f"connection from {each.client_address}" for each in self.server.connections]
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(TICK_SECONDS)


@pytest.fixture
def environment(imported_authorizer: ModuleType, server: ChaosServer, monkeypatch: pytest.MonkeyPatch) -> Environment:
    return Environment(imported_authorizer, server, monkeypatch)


def list_key_material(keys: Keys) -> list[str]:
    members = [value for key in keys for value in key.as_dict(private=True).values()]
    return [member for member in members if isinstance(member, str) and len(member) > 40]


# Each behaviour


@pytest.mark.parametrize(("chaos", "ending"), ALL_ROWS)
def test_cold_start_downloads_once_and_uses_only_sound_keys(
    environment: Environment,
    sign: Sign,
    forged_tokens: list[str],
    caplog: pytest.LogCaptureFixture,
    *,
    chaos: Chaos,
    ending: Ending,
) -> None:
    environment.switch_to(chaos, ending)
    assert "Allow" not in map(environment.connect, forged_tokens)
    assert environment.connect(sign()).endswith(ending)
    assert len(environment.server.requests) == (chaos is not never_accept)
    assert environment.find_leftovers() == []

    logged = [vars(record) for record in caplog.records]
    errors = [str(record["reason"]) for record in logged if record["message"] == "key set unavailable"]
    assert {error.endswith(ending) for error in errors} == (set() if ending in {"Allow", "Deny"} else {True})
    assert [member for member in list_key_material(environment.server.keys) if member in str(logged)] == []

    environment.switch_to(good, "Allow")
    environment.clock.now += COOLDOWN_SECONDS
    assert environment.connect(sign()) == "Allow"
    assert "Allow" not in map(environment.connect, forged_tokens)


@pytest.mark.parametrize(("chaos", "ending"), FIRST_ROWS.values())
def test_last_good_keys_serve_until_they_expire(
    environment: Environment, sign: Sign, forged_tokens: list[str], chaos: Chaos, ending: Ending
) -> None:
    assert environment.connect(sign()) == "Allow"

    environment.switch_to(chaos, ending)
    environment.clock.now += STALE_SECONDS
    assert environment.connect(sign()) == ("Deny" if ending == "Deny" else "Allow")
    assert "Allow" not in map(environment.connect, forged_tokens)

    environment.clock.now += EXPIRED_SECONDS - STALE_SECONDS
    assert environment.connect(sign()).endswith(ending)
    assert "Allow" not in map(environment.connect, forged_tokens)

    environment.switch_to(good, "Allow")
    environment.clock.now += COOLDOWN_SECONDS
    assert environment.connect(sign()) == "Allow"


# Connections


def is_connecting_to(port: int) -> bool:
    """Return whether a socket has sent a SYN to this port and has no answer: state TCP_SYN_SENT in /proc/net/tcp."""
    connections = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(remote.endswith(f":{port:04X}") and state == "02" for _, _, remote, state, *_ in connections)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc/net/tcp, which shows a lost SYN")
def test_lost_syn_is_repeated_in_time(environment: Environment, server: ChaosServer, sign: Sign) -> None:
    """Linux drops a SYN while the queue of the listening socket is full, and repeats it after a second."""
    server.switch_to(never_accept)
    with ThreadPoolExecutor(1) as pool:
        user = pool.submit(environment.connect, sign())
        while not is_connecting_to(server.server_port):
            assert not user.done()
        server.switch_to(good)

        assert user.result(PATIENCE_SECONDS) == "Allow"


Resolve = Callable[..., None]


@pytest.fixture
def resolve_to(server: ChaosServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolve]:
    """Return a function that makes each host resolve to some dead addresses, then to some good ones."""
    resolve = socket.getaddrinfo
    with ChaosServer(server.keys, server.elsewhere) as dead:
        dead.switch_to(never_accept)

        def patch(*, dead_addresses: int, good_addresses: int = 0) -> None:
            def resolve_all(_: str, port: int, *arguments: Any, **options: Any) -> Any:
                ports = [dead.server_port] * dead_addresses + [port] * good_addresses
                resolved = [resolve("127.0.0.1", each, *arguments, **options) for each in ports]
                return [address for addresses in resolved for address in addresses]

            patched.setattr(socket, "getaddrinfo", resolve_all)

        with monkeypatch.context() as patched:
            yield patch


def test_address_that_never_answers_leaves_time_for_the_next(
    environment: Environment, resolve_to: Resolve, sign: Sign
) -> None:
    resolve_to(dead_addresses=1, good_addresses=1)

    assert environment.connect(sign()) == "Allow"


@pytest.mark.parametrize(
    ("addresses", "seconds", "ending"),
    [(2, 60.0, ": TimeoutError"), (5, SHORT_SECONDS, TIMEOUT)],
    ids=["each address has its timeout", "all share the timeout of the download"],
)
def test_host_whose_addresses_never_answer_is_an_error(
    environment: Environment, resolve_to: Resolve, sign: Sign, *, addresses: int, seconds: float, ending: str
) -> None:
    resolve_to(dead_addresses=addresses)
    environment.set_timeouts(seconds, connect=0.1)

    assert environment.connect(sign()).endswith(ending)
    assert environment.find_leftovers() == []


def test_port_without_a_server_is_an_error(environment: Environment, sign: Sign) -> None:
    environment.download_from(f"http://127.0.0.1:{find_free_port()}")
    assert environment.connect(sign()).endswith(": ConnectionRefusedError")

    environment.download_from("https://127.0.0.1:65536")
    assert environment.connect(sign()).endswith(": ValueError")


# TLS


@pytest.mark.parametrize(
    "certificate", [Certificate(address="127.0.0.2"), Certificate(days=-1)], ids=["another's", "expired"]
)
def test_keys_are_not_downloaded_from_a_server_with_a_wrong_certificate(
    environment: Environment, sign: Sign, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificate: Certificate
) -> None:
    written = certificate.write(tmp_path / "server.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(written))

    with TlsServer(build_key_set(environment.server.keys.signing), written) as server:
        environment.download_from(server.url)
        assert environment.connect(sign()).endswith(": SSLCertVerificationError")

    assert server.requests == []


def test_handshake_may_take_longer_than_a_tcp_connection(
    environment: Environment, sign: Sign, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate = Certificate().write(tmp_path / "server.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    environment.set_timeouts(60.0, connect=0.1)

    with TlsServer(build_key_set(environment.server.keys.signing), certificate, delay_seconds=0.3) as server:
        environment.download_from(server.url)
        assert environment.connect(sign()) == "Allow"


def test_handshake_that_never_ends_is_aborted(environment: Environment, sign: Sign) -> None:
    environment.set_timeouts(SHORT_SECONDS)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        environment.download_from(f"https://127.0.0.1:{mute.getsockname()[1]}")

        assert environment.connect(sign()).endswith(TIMEOUT)
        assert environment.find_leftovers() == []


# In Lambda's runtime


class Runtime:
    """Calls the authorizer behind the emulator."""

    def __init__(self, authorizer: Emulator, event: EventFactory) -> None:
        self._authorizer = authorizer
        self._event = event
        self._started = time.monotonic()

    def connect(self, token: str) -> str:
        """Return the same as `Environment.connect`. Fail at errors other than KeySetUnavailable."""
        status, answer = self._authorizer.invoke(self._event(queryStringParameters={"idToken": token}))
        assert status == 200, answer
        if "errorType" not in answer:
            return get_effect(answer)
        assert answer["errorType"] == "KeySetUnavailable", answer
        return str(answer["errorMessage"])

    def count_allowed_downloads(self, cooldown: float = COOLDOWN_SECONDS) -> int:
        """Return the maximum: one download for valid users, one at once for others, one more after each cooldown."""
        return 2 + int((time.monotonic() - self._started) / cooldown)

    def log(self) -> str:
        return self._authorizer.log()


@pytest.fixture
def runtime(emulate: Emulate, server: ChaosServer, authorizer_event: EventFactory) -> Iterator[Runtime]:
    endpoint = {JWKS_ENDPOINT: server.url}
    with emulate("authorizer", AUTHORIZER | endpoint) as authorizer:
        yield Runtime(authorizer, authorizer_event)


@pytest.mark.parametrize("name", ["two keys of a kid", "never answers"])
def test_runtime_answers_while_the_endpoint_misbehaves(
    runtime: Runtime, server: ChaosServer, sign: Sign, forged_tokens: list[str], name: str
) -> None:
    chaos, ending = TABLES[name]
    server.switch_to(chaos)

    assert "Allow" not in map(runtime.connect, forged_tokens)
    assert runtime.connect(sign()).endswith(" within 3 s" if ending == TIMEOUT else ending)
    assert 1 <= len(server.requests) <= runtime.count_allowed_downloads(RETRY_SECONDS)
    assert [member for member in list_key_material(server.keys) if member in runtime.log()] == []


def test_runtime_downloads_once_for_known_keys_and_once_a_cooldown_for_unknown_ones(
    runtime: Runtime, server: ChaosServer, sign: Sign
) -> None:
    """The init phase downloads nothing."""
    user = sign()
    assert runtime.connect("no.to.ken") == "Deny"
    assert server.requests == []

    assert [runtime.connect(user) for _ in range(20)] == ["Allow"] * 20
    assert len(server.requests) == 1

    for number in range(20):
        stranger = sign(header={"kid": f"unknown {number}"})
        assert [runtime.connect(stranger), runtime.connect(user)] == ["Deny", "Allow"]
    assert len(server.requests) <= runtime.count_allowed_downloads()


def test_runtime_recovers_from_an_outage_and_follows_a_rotation(
    runtime: Runtime, server: ChaosServer, keys: Keys, sign: Sign
) -> None:
    """Recover after the retry interval of one real second."""
    server.switch_to(outage)
    assert runtime.connect(sign()).endswith("answered 503")

    server.switch_to(SOUND["new key beside the old"][0])
    while (outcome := runtime.connect(sign())) != "Allow":
        assert outcome.endswith("answered 503")
        assert len(server.requests) == 1
        time.sleep(0.2)

    assert 2 == len(server.requests) <= runtime.count_allowed_downloads()
    assert [runtime.connect(sign(key=key)) for key in (keys.rotated, keys.attacker)] == ["Allow", "Deny"]
