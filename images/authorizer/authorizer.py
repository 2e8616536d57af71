"""Lambda authorizer of `$connect`: allow a client whose ID token is valid for the user pool, deny all others."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import ssl
import sys
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from types import ModuleType
from typing import Any, Literal, NamedTuple, NoReturn, Self
from urllib.parse import urlsplit


class UnusedModule(ModuleType):
    """A stand-in for a module that is never called. Each of its attributes is None."""

    def __getattr__(self, name: str) -> None:
        return None


@contextmanager
def skip_import_of(*names: str) -> Iterator[None]:
    """Import a library without these modules: they load slowly, and nothing here calls them."""
    unused = {name: UnusedModule(name) for name in names if name not in sys.modules}
    sys.modules.update(unused)
    yield
    for name in unused:
        del sys.modules[name]


with skip_import_of("cryptography.x509", "cryptography.hazmat.primitives.serialization.ssh"):
    from joserfc import jws
    from joserfc.errors import DecodeError, JoseError
    from joserfc.jwk import RSAKey

logger = logging.getLogger(__name__)
logging.getLogger("aws_xray_sdk").setLevel(logging.ERROR)  # it warns at each invocation without a trace

RS256 = jws.JWSRegistry(algorithms=["RS256"])
TOKEN_SUBPROTOCOL = "idToken."  # prefix of the subprotocol that carries the token
MAX_TOKEN_CHARACTERS = 8192
MAX_KID_CHARACTERS = 128
SUBJECT = r"[\x20-\x7e]{1,255}"  # OpenID Connect Core 1.0 section 2
LAST_NUMERIC_DATE = 253402300799  # the end of the year 9999
MIN_MODULUS_BITS = 2048  # RFC 7518 section 3.3
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth"}  # RFC 7518 section 6.3.2
MAX_KEYS = 32
MAX_JWKS_BYTES = 64 * 1024
JWKS_SECONDS = 3.0  # for a whole download
JWKS_REFRESH_SECONDS = 1.0  # for a whole download while a cached key serves
JWKS_CONNECT_SECONDS = 1.4  # for each address: Linux repeats a lost SYN after 1 s; leaves time for a second address
JWKS_COOLDOWN_SECONDS = 10.0  # after a download that failed or had no key named `kid`
JWKS_RETRY_SECONDS = 1.0  # the same while no keys are cached, so that nobody can connect
JWKS_STALE_SECONDS = 3600.0  # then keys are refreshed, which removes withdrawn keys
JWKS_EXPIRED_SECONDS = 86400.0  # then keys that could not be refreshed are no longer used

ORIGIN = r"[a-z][a-z0-9+.-]*://[^\s/,?#@*A-Z]+"  # as browsers write it, RFC 6454 section 6.2
THIS_MACHINE = r"localhost|127(\.[0-9]{1,3}){3}|\[::1\]|host\.docker\.internal|host\.containers\.internal"
ENDPOINT_URL = rf"(https://[A-Za-z0-9.-]+|http://({THIS_MACHINE}))(:[0-9]{{1,5}})?(/[^?#\s]*)?"
# DNS suffixes by the first part of a region's name. All other regions with user pools have amazonaws.com.
DNS_SUFFIXES = {"eusc": "amazonaws.eu"}

FUNCTION_NAME = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "")
# The dimension ReasonClass by reason: `expired_token.exp` is looked up without `.exp`. Other reasons are "signature".
REASON_CLASSES = {
    "missing_token": "credential",
    "repeated_idToken": "credential",
    "repeated_sec-websocket-protocol": "credential",
    "exceeded_size": "credential",
    "malformed_token": "credential",
    "missing_claim": "claims",
    "invalid_claim": "claims",
    "expired_token": "expired",
    "missing_origin": "policy",
    "repeated_origin": "policy",
    "origin_not_allowed": "policy",
    "missing_group": "policy",
}

Event = dict[str, Any]
Policy = dict[str, Any]
Claims = dict[str, Any]
Facts = dict[str, Any]  # what the log line and the trace say about an invocation


class Settings(NamedTuple):
    """The authorizer's settings, from its environment variables.

    Attributes:
        issuers: both values of `iss` that the user pool can write.
        allowed_origins: origins of the pages that may connect; empty: all.
        allow_missing_origin: whether to allow a client that sends no `Origin`.
        required_group: the group that a user must be in; empty: none.
        clock_skew_seconds: how far Cognito's clock may be ahead.
    """

    issuers: list[str]
    app_client_id: str
    jwks_url: str
    credential_mode: str
    allowed_origins: list[str]
    allow_missing_origin: bool
    required_group: str
    clock_skew_seconds: int

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Read and check the variables.

        Raises:
            RuntimeError: a variable is missing or malformed; the message names the variable and the rule.
        """

        def read_text(name: str, pattern: str, rule: str, default: str | None = None) -> str:
            value = environ.get(name) or default
            if value is None:
                raise RuntimeError(f"environment variable {name} is required")
            if not re.fullmatch(pattern, value):
                raise RuntimeError(f"environment variable {name} is malformed, it must be {rule}")
            return value

        user_pool_id = read_text("USER_POOL_ID", "[a-z0-9-]+_[A-Za-z0-9]+", "an id such as us-east-1_Example01")
        region = user_pool_id.partition("_")[0]
        host = f"cognito-idp.{region}.{DNS_SUFFIXES.get(region.partition('-')[0], 'amazonaws.com')}"
        endpoint_url = read_text(  # only the keys are downloaded from there; the issuers stay the same
            "AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER",
            ENDPOINT_URL,
            "an https:// URL, or an http:// URL of this machine",
            f"https://{host}",
        )
        origins = read_text("ALLOWED_ORIGINS", rf"({ORIGIN}([,\s]+|$))*", "origins such as https://example.com", "")
        return cls(
            # The user pool's IssuerConfiguration selects one of the two. Its owner may change the configuration.
            issuers=[f"https://{host}/{user_pool_id}", f"https://issuer-{host}/{user_pool_id}"],
            app_client_id=read_text("APP_CLIENT_ID", r"[A-Za-z0-9_+]{1,128}", "an app client's id"),
            jwks_url=f"{endpoint_url.rstrip('/')}/{user_pool_id}/.well-known/jwks.json",
            credential_mode=read_text(
                "CREDENTIAL_MODE", "querystring|subprotocol", "querystring or subprotocol", "querystring"
            ),
            allowed_origins=re.findall(ORIGIN, origins),
            allow_missing_origin=read_text("ALLOW_MISSING_ORIGIN", "true|false", "true or false", "false") == "true",
            required_group=read_text("REQUIRED_GROUP", r"\S{0,128}", "a group's name", ""),
            clock_skew_seconds=int(read_text("CLOCK_SKEW_SECONDS", "[0-5]", "a number from 0 to 5", "5")),
        )


class Rejected(Exception):
    """The client must be denied. The message is a reason code for the log; it never quotes what the client sent."""


class KeySetUnavailable(Exception):
    """The user pool's keys cannot be downloaded, so no token can be verified and the invocation fails."""


class Authorizer:
    """The Lambda handler."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        """Make no network call: the first token that needs keys downloads them."""
        self.settings = settings
        self.jwks = JwksCache(settings.jwks_url, clock)

    def __call__(self, event: Event, context: object) -> Policy:
        """Return a policy that allows or denies exactly this connection.

        https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-lambda-auth.html

        Raises:
            KeySetUnavailable: the keys cannot be downloaded; API Gateway answers 500.
        """
        request = event.get("requestContext") or {}
        facts = {
            "connectionId": request.get("connectionId"),
            "apiRequestId": request.get("requestId"),
            "routeKey": request.get("routeKey"),
        }
        with trace("authorizer", facts):
            return self.decide(event, facts, context)

    def decide(self, event: Event, facts: Facts, context: object) -> Policy:
        """Return the policy, and log the decision in one line."""
        method_arn = event["methodArn"]
        if not isinstance(method_arn, str):
            raise TypeError("methodArn must be a string")
        try:
            self.check_origin(event)
            claims = self.verify(self.get_token(event), facts)
        except Rejected as rejection:
            reason = str(rejection)
            facts |= {"reason": reason, "ReasonClass": REASON_CLASSES.get(reason.partition(".")[0], "signature")}
            logger.warning("connection rejected", extra=build_line(facts, Refused=1))
            return build_policy("Deny", method_arn, "anonymous", {})
        except KeySetUnavailable as error:
            logger.error("key set unavailable", extra=build_line({**facts, "reason": str(error)}, KeysUnavailable=1))
            raise
        facts["sub"] = claims["sub"]
        log_acceptance(facts, context)
        context_values = {"userId": claims["sub"], "exp": str(int(claims["exp"]))}
        return build_policy("Allow", method_arn, claims["sub"], context_values)

    def check_origin(self, event: Event) -> None:
        """Raise Rejected unless the page's origin is listed, byte for byte (RFC 6455 section 10.2)."""
        if not self.settings.allowed_origins:
            return
        origin = find_single(event, "headers", "origin")
        if origin is None and not self.settings.allow_missing_origin:
            raise Rejected("missing_origin")
        if origin is not None and origin not in self.settings.allowed_origins:
            raise Rejected("origin_not_allowed")

    def get_token(self, event: Event) -> str:
        """Return the token that the client sent, not verified yet; raise Rejected if it is missing or too long."""
        if self.settings.credential_mode == "querystring":
            token = find_single(event, "queryStringParameters", "idToken")
        else:
            token = find_token_subprotocol(find_single(event, "headers", "sec-websocket-protocol") or "")
        if not token:
            raise Rejected("missing_token")
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise Rejected("exceeded_size")
        return token

    def verify(self, token: str, facts: Facts) -> Claims:
        """Return the claims of an ID token that Cognito signed for the app client and that is valid now.

        https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-tokens-verifying-a-jwt.html
        and RFC 8725.
        """
        kid, signature = decode(token)
        key = self.jwks.find(kid, facts)
        if key is None:
            raise Rejected("unknown_kid")
        if not jws.validate_compact(signature, key, registry=RS256):
            raise Rejected("bad_signature")
        try:
            claims = parse_object(signature.payload)
        except (ValueError, RecursionError):
            raise Rejected("malformed_token") from None
        self.check_claims(claims)
        check_dates(claims, self.settings.clock_skew_seconds)
        return claims

    def check_claims(self, claims: Claims) -> None:
        """Compare the claims with what Cognito writes.

        joserfc's claims registry is not used, because it accepts a list that contains the expected value.
        """
        for name in ("iss", "aud", "token_use", "sub", "exp"):
            if claims.get(name) is None:
                raise Rejected(f"missing_claim.{name}")
        expected = {"iss": self.settings.issuers, "aud": [self.settings.app_client_id], "token_use": ["id"]}
        for name, values in expected.items():
            if claims[name] not in values:
                raise Rejected(f"invalid_claim.{name}")
        if not isinstance(claims["sub"], str) or not re.fullmatch(SUBJECT, claims["sub"]):
            raise Rejected("invalid_claim.sub")
        if not isinstance(claims.get("jti", ""), str):
            raise Rejected("invalid_claim.jti")
        groups = claims.get("cognito:groups")
        if self.settings.required_group and not (isinstance(groups, list) and self.settings.required_group in groups):
            raise Rejected("missing_group")


def build_line(facts: Mapping[str, Any], **metrics: int) -> dict[str, Any]:
    """Return the members of a log line: the facts, and the metrics that CloudWatch extracts from the line.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    directive = {
        "Namespace": "WebSocketApi",
        "Dimensions": [["FunctionName"], *([["FunctionName", "ReasonClass"]] if "ReasonClass" in facts else [])],
        "Metrics": [{"Name": name, "Unit": "Count"} for name in metrics],
    }
    emf = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
    return {**facts, **metrics, "FunctionName": FUNCTION_NAME, "_aws": emf}


ACCEPTED = {"level": "INFO", "message": "connection accepted", "logger": logger.name, **build_line({}, Refused=0)}
del ACCEPTED["_aws"]["Timestamp"]
ACCEPTED_JSON = json.dumps(ACCEPTED)[1:-2]  # without the braces at the end, so that `_aws` can get its timestamp


def log_acceptance(facts: Facts, context: object) -> None:
    """Write the line of `logger.info("connection accepted", extra=build_line(facts, Refused=0))` in half the time.

    Every warm invocation writes this line. The logging package needs as much time for it as the signature check.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    now = time.time()
    members = json.dumps(
        {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
            "requestId": getattr(context, "aws_request_id", None),
            **facts,
        }
    )
    sys.stdout.write(f'{members[:-1]}, {ACCEPTED_JSON}, "Timestamp": {now * 1000:.0f}}}}}\n')


@contextmanager
def trace(name: str, facts: Facts | None = None) -> Iterator[None]:
    """Record a subsegment, annotated with the facts, if X-Ray samples the invocation.

    The X-Ray SDK is imported here, by the first sampled invocation, because the import slows down a cold start.
    """
    if "Sampled=1" not in os.environ.get("_X_AMZN_TRACE_ID", ""):
        yield
        return
    from aws_xray_sdk.core import xray_recorder  # noqa: PLC0415 - see above

    with xray_recorder.in_subsegment(name) as subsegment:
        outcome = "ok"
        try:
            yield
        except Exception as error:
            outcome = type(error).__name__
            raise
        finally:
            if subsegment and facts:
                subsegment.put_annotation("connection_id", facts["connectionId"])
                subsegment.put_annotation("route", facts["routeKey"])
                subsegment.put_annotation("reason", facts.get("reason", outcome))


def build_policy(
    effect: Literal["Allow", "Deny"], method_arn: str, principal_id: str, context: dict[str, str]
) -> Policy:
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": method_arn}
    return {
        "principalId": principal_id,
        "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
        "context": context,
    }


def find_single(event: Event, part: Literal["headers", "queryStringParameters"], name: str) -> str | None:
    """Return a header or a query string parameter; None if it is absent. Pass a header's name in lower case.

    Raises:
        Rejected: the client sent it more than once, so its meaning is ambiguous.
    """
    normalize = str.lower if part == "headers" else str
    multi_value_part = f"multiValue{part[0].upper()}{part[1:]}"
    values = [value for key, value in (event.get(part) or {}).items() if normalize(key) == name]
    lists = [value for key, value in (event.get(multi_value_part) or {}).items() if normalize(key) == name]
    if len(values) > 1 or sum(map(len, lists)) > 1:
        raise Rejected(f"repeated_{name}")
    return values[0] if values else None


def find_token_subprotocol(offer: str) -> str | None:
    """Return the token among the subprotocols that a client offers, such as `echo.v1, idToken.eyJ…`."""
    names = [name.strip(" \t") for name in offer.split(",")]
    tokens = [name.removeprefix(TOKEN_SUBPROTOCOL) for name in names if name.startswith(TOKEN_SUBPROTOCOL)]
    if len(tokens) > 1:
        raise Rejected("repeated_sec-websocket-protocol")
    return tokens[0] if tokens else None


def decode(token: str) -> tuple[str, jws.CompactSignature]:
    """Return the `kid` and the parts of a compact JWS. Nothing is verified yet."""
    try:
        header = parse_object(urlsafe_b64decode(token.partition(".")[0] + "=="))  # joserfc accepts duplicate members
        return get_kid(header), jws.extract_compact(token.encode())
    except (DecodeError, ValueError, RecursionError):
        raise Rejected("malformed_token") from None
    except JoseError as error:
        raise Rejected(error.error) from None


def get_kid(header: dict[str, Any]) -> str:
    """Return the `kid` of a header; raise Rejected for a header that Cognito does not write, before a key is looked up."""
    if header.get("alg") != "RS256":
        raise Rejected("unsupported_algorithm")
    if header.keys() - {"alg", "kid", "typ"}:  # Cognito sets no other member, so crit, jku and jwk are refused
        raise Rejected("unsupported_header")
    if str(header.get("typ", "JWT")).upper() != "JWT":
        raise Rejected("unsupported_type")
    kid = header.get("kid")
    if kid is None:
        raise Rejected("missing_kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID_CHARACTERS:
        raise Rejected("malformed_kid")
    return kid


def parse_object(octets: bytes) -> dict[str, Any]:
    """Parse a JSON object in UTF-8 (RFC 7519 sections 4 and 7.2).

    Duplicate members, NaN and Infinity are refused, because parsers disagree about them.

    Raises:
        ValueError: it is not such an object.
        RecursionError: it is nested too deeply.
    """
    value = STRICT_JSON.decode(octets.decode())
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - callers expect ValueError
    return value


def reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


STRICT_JSON = json.JSONDecoder(object_pairs_hook=reject_duplicates, parse_constant=reject_constant)


def check_dates(claims: Claims, clock_skew_seconds: int) -> None:
    """Check that the token is valid now (RFC 7519 section 4.1). The clock skew does not extend `exp`."""
    now = time.time()
    for name in ("exp", "iat", "nbf", "auth_time"):
        value = claims.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LAST_NUMERIC_DATE:
            raise Rejected(f"invalid_claim.{name}")
        if name in ("iat", "nbf") and value > now + clock_skew_seconds:
            raise Rejected(f"invalid_claim.{name}")
    if claims["exp"] <= now:
        raise Rejected("expired_token.exp")


class JwksCache:
    """A cache of the user pool's public keys by `kid`, kept across invocations.

    Keys are downloaded if the `kid` is unknown or the keys are stale. If the download fails or has no such `kid`, the next
    one waits for the cooldown. While downloads fail, the last good keys serve until they expire.
    """

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        self._url = url
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str, RSAKey] = {}  # other threads read it, so it is replaced and never changed
        self._downloaded_at = self._failed_at = float("-inf")
        self._error: KeySetUnavailable | None = None

    def find(self, kid: str, facts: Mapping[str, Any] = {}) -> RSAKey | None:
        """Return the key named `kid`; None if the user pool has no such key.

        If a refresh fails while the key is cached, the cached key is returned and the failure is logged with these facts.

        Raises:
            KeySetUnavailable: the keys cannot be downloaded now.
        """
        key = self._get(kid)
        if key is None or self._is_stale():
            # If the key is cached, do not wait for another thread's download.
            if self._lock.acquire(blocking=key is None):
                try:
                    self._refresh(kid, facts)
                finally:
                    self._lock.release()
            key = self._get(kid)
            if key is None and self._error:
                raise KeySetUnavailable(str(self._error)) from self._error
        return key

    def _get(self, kid: str) -> RSAKey | None:
        return self._keys.get(kid) if self._age() < JWKS_EXPIRED_SECONDS else None

    def _is_stale(self) -> bool:
        return self._age() >= JWKS_STALE_SECONDS

    def _age(self) -> float:
        return abs(self._clock() - self._downloaded_at)  # keys must expire even if the clock was set back

    def _refresh(self, kid: str, facts: Mapping[str, Any]) -> None:
        """Download the keys, unless another thread has just done so or the cooldown is not over."""
        cached = self._get(kid)
        cooldown = JWKS_COOLDOWN_SECONDS if self._age() < JWKS_EXPIRED_SECONDS else JWKS_RETRY_SECONDS
        if (cached and not self._is_stale()) or abs(self._clock() - self._failed_at) < cooldown:
            return
        started_at = self._clock()
        self._error = KeySetUnavailable(f"{self._url} was not downloaded")  # assume failure; overwritten on success
        try:
            self._keys = select_usable_keys(download(self._url, JWKS_REFRESH_SECONDS if cached else JWKS_SECONDS))
        except KeySetUnavailable as error:
            self._error = error
            if cached:  # otherwise the caller raises the error
                logger.error(
                    "key set unavailable", extra=build_line({**facts, "reason": str(error)}, KeysUnavailable=1)
                )
        else:
            self._downloaded_at = started_at
            self._error = None
        finally:
            failed = self._error or kid not in self._keys
            self._failed_at = self._clock() if failed else float("-inf")


def select_usable_keys(jwks: bytes) -> dict[str, RSAKey]:
    """Return the keys of a JWK Set that can verify RS256. Other keys are ignored (RFC 7517 section 5).

    Raises:
        KeySetUnavailable: it is not a JWK Set, it has too many keys, or no key can be used.
    """
    try:
        published = list(json.loads(jwks)["keys"])
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise KeySetUnavailable(f"the JWKS is malformed: {type(error).__name__}") from error
    if len(published) > MAX_KEYS:
        raise KeySetUnavailable(f"the JWKS has over {MAX_KEYS} keys")
    by_thumbprint = {(str(key.kid), key.thumbprint()): key for key in map(import_rs256_key, published) if key}
    kids = [kid for kid, _ in by_thumbprint]
    # A `kid` that two different keys share is ambiguous.
    keys = {kid: key for (kid, _), key in by_thumbprint.items() if kids.count(kid) == 1}
    if not keys:
        raise KeySetUnavailable("the JWKS has no RSA signature key")
    return keys


def import_rs256_key(jwk: object) -> RSAKey | None:
    """Return the key that a JWK describes; None if it cannot verify RS256 or is not safe to use."""
    if not (isinstance(jwk, dict) and isinstance(jwk.get("kid"), str) and jwk["kid"]):
        return None
    if (jwk.get("kty"), jwk.get("use", "sig"), jwk.get("alg", "RS256")) != ("RSA", "sig", "RS256"):
        return None
    if jwk.keys() & PRIVATE_MEMBERS:  # its private half is public, so everybody can sign with it
        return None
    try:
        key = RSAKey.import_key(jwk)
        key.check_key_op("verify")
    except (ValueError, TypeError, JoseError):
        return None
    return key if key.raw_value.key_size >= MIN_MODULUS_BITS else None


def download(url: str, seconds: float) -> bytes:
    """Return the body of the response to a GET. Redirects are not followed.

    Raises:
        KeySetUnavailable: the response did not come in time, had an error status, or was too large.
    """
    with trace("jwks"):
        request = GetRequest(url)
        request.start()
        request.join(seconds)
        if request.is_alive():
            request.abort()
            raise KeySetUnavailable(f"{url} did not answer completely within {seconds:g} s")
        if request.error:
            raise KeySetUnavailable(f"{url}: {type(request.error).__name__}") from request.error
        if request.status != 200:
            raise KeySetUnavailable(f"{url} answered {request.status}")
        if len(request.body) > MAX_JWKS_BYTES:
            raise KeySetUnavailable(f"{url} sent over {MAX_JWKS_BYTES} bytes")
        return request.body


class GetRequest(threading.Thread):
    """An HTTP request in a thread of its own, so that the caller can stop waiting for it.

    A socket's timeout cannot do this: it limits each read, not the whole request, and name resolution has no timeout.

    Attributes:
        error: why there is no response; None if there is one.
    """

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = urlsplit(url)
        self._socket: socket.socket | None = None
        self._aborted = False
        self.error: Exception | None = None
        self.status = 0
        self.body = b""

    def run(self) -> None:
        try:
            connection = HTTPConnection(self._url.netloc)
            connection.sock = self._connect()
            connection.request("GET", self._url.path)
            with connection.getresponse() as response:
                self.status, self.body = response.status, response.read(MAX_JWKS_BYTES + 1)
        except (OSError, HTTPException, ValueError, AttributeError) as error:
            self.error = error  # AttributeError if abort() came before the TLS handshake
        finally:
            if self._socket:
                self._socket.close()

    def _connect(self) -> socket.socket:
        host, is_https = self._url.hostname, self._url.scheme == "https"
        connected = socket.create_connection((host, self._url.port or (443 if is_https else 80)), JWKS_CONNECT_SECONDS)
        connected.settimeout(None)  # abort() ends a request that takes too long
        if is_https:
            tls = ssl.create_default_context()
            connected = tls.wrap_socket(connected, server_hostname=host, do_handshake_on_connect=False)
        self._socket = connected
        if self._aborted:
            raise TimeoutError
        if isinstance(connected, ssl.SSLSocket):
            connected.do_handshake()
        return connected

    def abort(self) -> None:
        """Shut down the socket, which ends the thread if it is still reading."""
        self._aborted = True
        if self._socket:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


handler = Authorizer(Settings.read(os.environ))
