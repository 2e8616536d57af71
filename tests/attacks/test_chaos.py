"""The authorizer at the mercy of its JWKS endpoint: no forged token gets in, valid ones do as long as they can."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from tests.attacks.chaos import (
    FAULTY,
    OK,
    SOUND,
    TICK_SECONDS,
    TIMEOUT,
    UNENDING,
    Chaos,
    ChaosServer,
    Keys,
    drip,
    good,
    held,
    http,
    jwk,
    never_accepting,
    publish,
    say,
    silence,
    slow,
)
from tests.conftest import (
    APP_CLIENT_ID,
    JWKS_PATH,
    USER_POOL_ID,
    Clock,
    ColdStart,
    EventFactory,
    LoopbackServer,
    Sign,
    base64url,
    cognito_claims,
    effect,
    key_set,
    new_key,
)
from tests.rie import conftest as rie

emulate, run = rie.emulate, rie.run
pytestmark = pytest.mark.filterwarnings("ignore:Key size should be:joserfc.errors.SecurityWarning")

PATIENCE_SECONDS = 5.0
RETRY_SECONDS, COOLDOWN_SECONDS, SOFT_AGE_SECONDS, HARD_AGE_SECONDS = 1, 10, 3600, 86400
SHA256_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")  # RFC 8017 section 9.2, note 1
both_keys = publish(lambda keys: [jwk(keys.signing), jwk(keys.rotated)])
outage = say(http(b"", 503))
new_key_only = publish(lambda keys: [jwk(keys.rotated)])

Ending = str | tuple[str, ...]
Unknown = Callable[[int], Iterator[str]]


EVERY = [pytest.param(*row, id=name) for name, row in (SOUND | FAULTY | UNENDING).items()]


@pytest.fixture(scope="module")
def keys(signing_key: RSAKey, other_key: RSAKey) -> Keys:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weak = new_key("weak3example=", 1024)
    curve = ECKey.generate_key("P-256", parameters={"kid": "curve4example="})
    secret = OctKey.generate_key(256, parameters={"kid": "secret5example="})
    return Keys(signing_key, other_key, new_key("attacker6example="), weak, curve, secret)


@pytest.fixture(scope="module")
def forged(keys: Keys, sign: Sign) -> list[str]:
    """Tokens that nobody may believe, whatever is published."""
    named = {"kid": keys.signing.kid}
    attacker = RSAKey.import_key(keys.attacker.as_pem(private=True))
    others: dict[str, RSAKey | ECKey | OctKey] = {
        "RS512": attacker,
        "PS256": attacker,
        "ES256": keys.curve,
        "HS256": keys.secret,
    }
    signing_input = sign().rpartition(".")[0]
    return [
        sign(key=keys.attacker),
        sign(key=keys.attacker, header=named),
        sign(key=keys.attacker, header={"kid": str(keys.signing.kid).swapcase()}),
        sign(key=keys.attacker, header={"kid": ""}),
        sign(key=keys.attacker, header={"kid": None}),
        sign(key=keys.weak, header=named),
        sign(header={"alg": "none"}).rpartition(".")[0] + ".",
        *(jwt.encode({"alg": alg, **named}, cognito_claims(), key, algorithms=[alg]) for alg, key in others.items()),
        f"{signing_input}.{base64url(encoded_message(signing_input))}",
    ]


def encoded_message(signing_input: str) -> bytes:
    """RFC 8017 section 9.2; by a key with e=1 it is its own signature."""
    digest = SHA256_DIGEST_INFO + sha256(signing_input.encode()).digest()
    return b"\x00\x01" + b"\xff" * (256 - 3 - len(digest)) + b"\x00" + digest


@pytest.fixture
def server(keys: Keys) -> Iterator[ChaosServer]:
    """The user pool's; to wherever it redirects, nobody must go."""
    with LoopbackServer(key_set(keys.attacker)) as elsewhere:
        with ChaosServer(keys, elsewhere.url) as server:
            yield server
        assert elsewhere.requests == []


class Environment:
    """The authorizer in an execution environment of its own, whose keys age by the clock."""

    def __init__(self, authorizer: Any, server: ChaosServer, event: EventFactory) -> None:
        self.authorizer = authorizer
        self.server = server
        self.clock = Clock()
        self._event = event()
        self._before = set(threading.enumerate())
        self.trust(server.url)

    def trust(self, url: str) -> None:
        self.authorizer.handler.jwks = self.authorizer.JwksCache(f"{url}{JWKS_PATH}", clock=self.clock)

    def turn(self, chaos: Chaos, ending: Ending) -> None:
        """Turns the server; if a timeout is what this leads to, it is a short one."""
        self.authorizer.JWKS_SECONDS = 0.2 if TIMEOUT in ending else 3.0
        self.authorizer.JWKS_REFRESH_SECONDS = min(self.authorizer.JWKS_SECONDS, 1.0)
        self.server.turn(chaos)

    def connect(self, token: str) -> str:
        """What whoever brings this token gets: Allow, Deny, or the message of our fault."""
        try:
            return effect(self.authorizer.handler({**self._event, "queryStringParameters": {"idToken": token}}, None))
        except self.authorizer.KeySetUnavailable as fault:
            return str(fault)

    def leftovers(self) -> list[str]:
        """What downloads leave behind, here and at the server, if they do not end in the time that they have."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            threads = [each.name for each in set(threading.enumerate()) - self._before if "ThreadPool" in each.name]
            found = threads + [f"connection from {each.client_address}" for each in self.server.connections]
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(TICK_SECONDS)


@pytest.fixture
def environment(cold_start: ColdStart, server: ChaosServer, authorizer_event: EventFactory) -> Environment:
    pool = {"USER_POOL_ID": USER_POOL_ID, "APP_CLIENT_ID": APP_CLIENT_ID}
    return Environment(cold_start("authorizer", **pool), server, authorizer_event)


def material(keys: Keys) -> list[str]:
    members = [value for key in keys for value in key.as_dict(private=True).values()]
    return [member for member in members if isinstance(member, str) and len(member) > 40]


# Each chaos


@pytest.mark.parametrize(("chaos", "ending"), EVERY)
def test_cold_start_asks_once_and_believes_only_what_is_sound(
    environment: Environment,
    sign: Sign,
    forged: list[str],
    caplog: pytest.LogCaptureFixture,
    *,
    chaos: Chaos,
    ending: Ending,
) -> None:
    environment.turn(chaos, ending)
    assert "Allow" not in map(environment.connect, forged)
    assert environment.connect(sign()).endswith(ending)
    assert len(environment.server.requests) == (chaos is not never_accepting)
    assert environment.leftovers() == []

    logged = [vars(record) for record in caplog.records]
    faults = [str(record["reason"]) for record in logged if record["message"] == "key set unavailable"]
    assert [fault.endswith(ending) for fault in faults] == ([] if ending in {"Allow", "Deny"} else [True])
    assert [member for member in material(environment.server.keys) if member in str(logged)] == []

    environment.turn(good, "Allow")
    environment.clock.now += COOLDOWN_SECONDS
    assert environment.connect(sign()) == "Allow"
    assert "Allow" not in map(environment.connect, forged)


@pytest.mark.parametrize(("chaos", "ending"), EVERY)
def test_last_good_keys_serve_until_they_are_too_old(
    environment: Environment, sign: Sign, forged: list[str], chaos: Chaos, ending: Ending
) -> None:
    assert environment.connect(sign()) == "Allow"

    environment.turn(chaos, ending)
    environment.clock.now += SOFT_AGE_SECONDS
    assert environment.connect(sign()) == ("Deny" if ending == "Deny" else "Allow")
    assert "Allow" not in map(environment.connect, forged)

    environment.clock.now += HARD_AGE_SECONDS - SOFT_AGE_SECONDS
    assert environment.connect(sign()).endswith(ending)
    assert "Allow" not in map(environment.connect, forged)

    environment.turn(good, "Allow")
    environment.clock.now += COOLDOWN_SECONDS
    assert environment.connect(sign()) == "Allow"


def test_given_up_download_is_not_begun_later(
    environment: Environment, sign: Sign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Name resolution knows no timeout."""
    resolve, given_up, in_time = socket.getaddrinfo, threading.Event(), list[bool]()

    def resolve_late(*arguments: Any, **options: Any) -> Any:
        in_time.append(given_up.wait(PATIENCE_SECONDS))
        return resolve(*arguments, **options)

    environment.turn(drip(OK, b"X"), TIMEOUT)
    monkeypatch.setattr(socket, "getaddrinfo", resolve_late)
    assert environment.connect(sign()).endswith(TIMEOUT)

    given_up.set()
    assert (environment.leftovers(), environment.server.requests) == ([], [])
    assert in_time == [True]


def test_address_that_never_answers_leaves_time_for_the_next(
    environment: Environment, server: ChaosServer, sign: Sign, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    with ChaosServer(server.keys, server.elsewhere) as dead:
        dead.turn(never_accepting)

        def resolve_both(_: str, port: int, *arguments: Any, **options: Any) -> Any:
            both = [resolve("127.0.0.1", each, *arguments, **options) for each in (dead.server_port, port)]
            return [address for addresses in both for address in addresses]

        with monkeypatch.context() as two_addresses:
            two_addresses.setattr(socket, "getaddrinfo", resolve_both)
            assert environment.connect(sign()) == "Allow"


def test_user_whose_key_serves_waits_for_a_renewal_no_longer_than_that_may_take(
    environment: Environment, sign: Sign, caplog: pytest.LogCaptureFixture
) -> None:
    """Less than a first download; given up by us, or else it would be the server that hangs up."""
    assert environment.connect(sign()) == "Allow"
    environment.authorizer.JWKS_SECONDS, environment.authorizer.JWKS_REFRESH_SECONDS = 60.0, 0.2
    environment.server.turn(silence)
    environment.clock.now += SOFT_AGE_SECONDS

    assert environment.connect(sign()) == "Allow"
    (reason,) = [vars(record)["reason"] for record in caplog.records if record.message == "key set unavailable"]
    assert reason.endswith(TIMEOUT)


def test_port_where_nobody_listens_is_our_fault(environment: Environment, sign: Sign) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        environment.trust(f"http://127.0.0.1:{closed.getsockname()[1]}")

    assert environment.connect(sign()).endswith(": ConnectionRefusedError")


def test_fault_that_nobody_foresaw_is_no_denial_afterwards(
    environment: Environment, sign: Sign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the system has no thread left."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as exhausted, suppress(RuntimeError):
        exhausted.setattr(threading.Thread, "start", refuse)
        environment.connect(sign())

    assert environment.connect(sign()) != "Deny"


def test_new_key_is_believed_while_the_old_one_still_is(environment: Environment, keys: Keys, sign: Sign) -> None:
    new, old = sign(key=keys.rotated), sign()
    assert environment.connect(old) == "Allow"

    environment.server.turn(both_keys)
    assert [environment.connect(new), environment.connect(old)] == ["Allow", "Allow"]

    environment.server.turn(new_key_only)
    environment.clock.now += SOFT_AGE_SECONDS
    assert [environment.connect(new), environment.connect(old)] == ["Allow", "Deny"]
    assert len(environment.server.requests) == 4  # the old key's token asks whether it is there again


# How often it asks


@pytest.fixture(scope="module")
def tokens(sign: Sign) -> list[str]:
    return [sign(sub=f"user-{number}") for number in range(20)]


@pytest.fixture(scope="module")
def unknown(tokens: list[str]) -> Unknown:
    """So many tokens, each of another key that was never published."""

    def of_unknown_keys(count: int) -> Iterator[str]:
        signed = tokens[0].partition(".")[2]
        for _ in range(count):
            header = json.dumps({"kid": str(uuid.uuid4()), "alg": "RS256"})
            yield f"{base64url(header.encode())}.{signed}"

    return of_unknown_keys


def test_thousand_valid_tokens_cost_the_download_of_the_cold_start(environment: Environment, tokens: list[str]) -> None:
    assert environment.server.requests == []

    assert [environment.connect(token) for token in islice(cycle(tokens), 1001)] == ["Allow"] * 1001
    assert len(environment.server.requests) == 1


@pytest.mark.parametrize(
    ("chaos", "seconds", "downloads"),
    [(good, 9, 1), (good, 99, 10), (outage, 99, 10)],
    ids=["in one cooldown", "in ten", "in ten of an outage"],
)
def test_ten_thousand_unknown_keys_cost_one_download_in_a_cooldown(
    environment: Environment, tokens: list[str], unknown: Unknown, *, chaos: Chaos, seconds: int, downloads: int
) -> None:
    """And valid users come in among them as before."""
    assert environment.connect(tokens[0]) == "Allow"
    environment.server.turn(chaos)
    environment.server.requests.clear()
    start = environment.clock.now

    for number, token in enumerate(unknown(10_000), 1):
        environment.clock.now = start + number * seconds // 10_000
        assert environment.connect(token) != "Allow"
        if number % 100 == 0:
            assert environment.connect(tokens[number // 100 % 20]) == "Allow"

    assert len(environment.server.requests) == downloads


@pytest.mark.parametrize(("chaos", "ending"), [(good, "Allow"), (outage, "answered 503")], ids=["good", "outage"])
def test_fifty_threads_at_a_cold_start_share_one_download(
    environment: Environment, tokens: list[str], chaos: Chaos, ending: str
) -> None:
    environment.server.turn(slow(0.2, chaos))
    together = threading.Barrier(50)

    def connect_together(token: str) -> str:
        together.wait(PATIENCE_SECONDS)
        return environment.connect(token)

    with ThreadPoolExecutor(50) as pool:
        outcomes = list(pool.map(connect_together, islice(cycle(tokens), 50)))

    assert [each for each in outcomes if not each.endswith(ending)] == []
    assert len(environment.server.requests) == 1


@pytest.mark.parametrize(
    ("seconds", "kid", "late"),
    [(0, "unknown", "Deny"), (SOFT_AGE_SECONDS, "signing1example=", "Allow")],
    ids=["unknown key", "soft age"],
)
def test_valid_users_do_not_wait_for_the_download_of_another(
    environment: Environment, tokens: list[str], sign: Sign, *, seconds: int, kid: str, late: str
) -> None:
    environment.authorizer.JWKS_SECONDS = environment.authorizer.JWKS_REFRESH_SECONDS = 60.0
    assert environment.connect(tokens[0]) == "Allow"
    environment.server.turn(held(good))
    environment.clock.now += seconds

    with ThreadPoolExecutor(5) as pool:
        try:
            other = pool.submit(environment.connect, sign(header={"kid": kid}))
            assert environment.server.asked.wait(PATIENCE_SECONDS)
            users = [pool.submit(environment.connect, token) for token in tokens]
            assert [user.result(PATIENCE_SECONDS) for user in users] == ["Allow"] * len(tokens)
            assert not other.done()
        finally:
            environment.server.released.set()
        assert other.result(PATIENCE_SECONDS) == late
    assert len(environment.server.requests) == 2


# Over TLS, as everywhere but in tests


class TlsServer(LoopbackServer):
    daemon_threads = False

    def handle_error(self, *_: object) -> None:
        """A handshake that fails is what a test may be about."""


class Certificate(NamedTuple):
    ending: str
    address: str = "127.0.0.1"
    days: int = 2
    trusted: bool = True

    def write(self, path: Path) -> Path:
        """It vouches for itself; its private key is in the same file."""
        key, now = rsa.generate_private_key(65537, 2048), datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self.address)])
        alternative_name = x509.SubjectAlternativeName([x509.IPAddress(ip_address(self.address))])
        signed = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + timedelta(days=self.days))
            .add_extension(alternative_name, critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, SHA256())
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(private + signed.public_bytes(Encoding.PEM))
        return path


@pytest.mark.parametrize(
    "certificate",
    [
        pytest.param(Certificate("Allow"), id="right"),
        pytest.param(Certificate(": SSLCertVerificationError", trusted=False), id="not trusted"),
        pytest.param(Certificate(": SSLCertVerificationError", address="127.0.0.2"), id="another's"),
        pytest.param(Certificate(": SSLCertVerificationError", days=-1), id="expired"),
    ],
)
def test_keys_are_taken_only_from_who_has_the_right_certificate(
    environment: Environment, sign: Sign, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificate: Certificate
) -> None:
    presented = certificate.write(tmp_path / "server.pem")
    trusted = presented if certificate.trusted else certificate.write(tmp_path / "other.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(presented)
    server = TlsServer(key_set(environment.server.keys.signing))
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)

    with server:
        environment.trust(f"https://127.0.0.1:{server.server_port}")
        assert environment.connect(sign()).endswith(certificate.ending)

    assert len(server.requests) == (certificate.ending == "Allow")


def test_handshake_that_never_ends_is_given_up(environment: Environment, sign: Sign) -> None:
    environment.authorizer.JWKS_SECONDS = 0.2
    with socket.create_server(("127.0.0.1", 0)) as mute:
        environment.trust(f"https://127.0.0.1:{mute.getsockname()[1]}")

        assert environment.connect(sign()).endswith(TIMEOUT)
        assert environment.leftovers() == []


# In Lambda's runtime


class Runtime:
    """The authorizer behind the emulator."""

    def __init__(self, authorizer: rie.Emulator, event: EventFactory) -> None:
        self._authorizer = authorizer
        self._event = event
        self._started = time.monotonic()

    def connect(self, token: str) -> str:
        """As an `Environment` does; a timeout, or any other fault than a lack of keys, fails the test."""
        status, answer = self._authorizer.invoke(self._event(queryStringParameters={"idToken": token}))
        assert status == 200, answer
        if "errorType" not in answer:
            return effect(answer)
        assert answer["errorType"] == "KeySetUnavailable", answer
        return str(answer["errorMessage"])

    def most_downloads(self, cooldown: float = COOLDOWN_SECONDS) -> int:
        """One for valid users, and for strangers one at once and one after each cooldown."""
        return 2 + int((time.monotonic() - self._started) / cooldown)

    def log(self) -> str:
        return self._authorizer.log()


@pytest.fixture
def runtime(emulate: rie.Emulate, server: ChaosServer, authorizer_event: EventFactory) -> Iterator[Runtime]:
    endpoint = {"AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER": server.url}
    with emulate("authorizer", rie.AUTHORIZER | endpoint) as authorizer:
        yield Runtime(authorizer, authorizer_event)


@pytest.mark.parametrize(
    "name",
    [
        "new key beside the old",
        "same key twice",
        "redirect 302",
        "garbage",
        "elliptic curve",
        "e=1",
        "two keys of a kid",
        "never answers",
    ],
)
def test_runtime_gets_an_answer_whatever_is_published(
    runtime: Runtime, server: ChaosServer, sign: Sign, forged: list[str], name: str
) -> None:
    chaos, ending = (SOUND | FAULTY | UNENDING)[name]
    server.turn(chaos)

    assert "Allow" not in map(runtime.connect, forged)
    assert runtime.connect(sign()).endswith(ending)
    assert 1 <= len(server.requests) <= runtime.most_downloads(RETRY_SECONDS)
    assert [member for member in material(server.keys) if member in runtime.log()] == []


def test_runtime_makes_one_download_for_a_thousand_users_and_many_strangers(
    runtime: Runtime, server: ChaosServer, tokens: list[str], unknown: Unknown
) -> None:
    """None in its init phase, one on first use; then 300 strangers, so that it does not take long."""
    assert runtime.connect("no.to.ken") == "Deny"
    assert server.requests == []

    assert [runtime.connect(token) for token in islice(cycle(tokens), 1001)] == ["Allow"] * 1001
    assert len(server.requests) == 1

    for stranger, user in zip(unknown(300), cycle(tokens), strict=False):
        assert [runtime.connect(stranger), runtime.connect(user)] == ["Deny", "Allow"]
    assert len(server.requests) <= runtime.most_downloads()


def test_runtime_recovers_from_an_outage_and_follows_a_rotation(
    runtime: Runtime, server: ChaosServer, keys: Keys, sign: Sign
) -> None:
    """After a real second."""
    server.turn(outage)
    assert runtime.connect(sign()).endswith("answered 503")

    server.turn(both_keys)
    while (outcome := runtime.connect(sign())) != "Allow":
        assert outcome.endswith("answered 503")
        assert len(server.requests) == 1
        time.sleep(0.2)

    assert 2 == len(server.requests) <= runtime.most_downloads()
    assert [runtime.connect(sign(key=key)) for key in (keys.rotated, keys.attacker)] == ["Allow", "Deny"]
