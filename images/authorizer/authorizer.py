"""Lambda authorizer of `$connect`: lets in whoever brings a valid ID token of the user pool, nobody else."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import threading
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from aws_xray_sdk.core import xray_recorder
from joserfc import jws, jwt
from joserfc.errors import ClaimError, JoseError
from joserfc.jwk import RSAKey

logger = logging.getLogger(__name__)
logging.getLogger("aws_xray_sdk").setLevel(logging.ERROR)  # it warns wherever there is no trace to join

COMPACT_JWS = r"[A-Za-z0-9_-]{1,683}(\.[A-Za-z0-9_-]+){2}"  # with a header of 512 octets at most
MAX_TOKEN_CHARACTERS = 8192
MAX_KID_CHARACTERS = 128
SUBJECT = r"[\x20-\x7e]{1,255}"  # OpenID Connect Core 1.0 section 2
LAST_NUMERIC_DATE = 253402300799  # the end of the year 9999
ORIGIN = r"[a-z][a-z0-9+.-]*://[^\s/,?#@*A-Z]+"  # as browsers write it, RFC 6454 section 6.2
TOKEN_SUBPROTOCOL = "idToken."  # what a client offers is this and the token; any other name it offers is no secret
MIN_MODULUS_BITS = 2048  # RFC 7518 section 3.3
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth"}  # RFC 7518 section 6.3.2
MAX_KEYS = 32
MAX_JWKS_BYTES = 64 * 1024
JWKS_CONNECT_SECONDS = 1.0  # to each of the host's addresses
JWKS_SECONDS = 3.0  # for the whole download, however slowly it drips
JWKS_RENEWAL_SECONDS = 1.0  # the same, while there is a key that serves
JWKS_COOLDOWN_SECONDS = 10.0  # after a download in vain, whatever kids the tokens name
JWKS_RETRY_SECONDS = 1.0  # the same, while no key serves and so nobody gets in
JWKS_SOFT_AGE_SECONDS = 3600.0  # then it is downloaded anew, and a withdrawn key is gone
JWKS_HARD_AGE_SECONDS = 86400.0  # then keys that could not be renewed are no longer trusted

Event = dict[str, Any]
Policy = dict[str, Any]
Claims = dict[str, Any]


class Rejected(Exception):
    """The caller's fault; the message is a reason code for logs and never quotes what the caller sent."""


class KeySetUnavailable(Exception):
    """Our fault: the user pool's keys cannot be had, so the token cannot be judged."""


def handler(event: Event, context: object) -> Policy:
    method_arn = event["methodArn"]
    if not isinstance(method_arn, str):
        raise TypeError("methodArn must be a string")
    try:
        check_origin(event)
        claims = verified_claims(id_token(event))
    except Rejected as rejection:
        logger.warning("connection rejected", extra={"reason": str(rejection), "connectionId": connection_id(event)})
        return policy("Deny", method_arn, principal_id="anonymous")
    logger.info("connection accepted", extra={"sub": claims["sub"], "connectionId": connection_id(event)})
    return policy(
        "Allow",
        method_arn,
        principal_id=claims["sub"],
        context={"userId": claims["sub"], "exp": str(int(claims["exp"]))},
    )


def check_origin(event: Event) -> None:
    """Rejected unless the page that connects is of an allowed origin, compared byte for byte (RFC 6455 section 10.2)."""
    if not ALLOWED_ORIGINS:
        return
    origin = sent(event, "headers", "origin")
    if origin is None and not ALLOW_MISSING_ORIGIN:
        raise Rejected("missing_origin")
    if origin is not None and origin not in ALLOWED_ORIGINS:
        raise Rejected("origin_not_allowed")


def id_token(event: Event) -> str:
    if CREDENTIAL_MODE == "querystring":
        token = sent(event, "queryStringParameters", "idToken")
    else:
        token = offered_token(sent(event, "headers", "sec-websocket-protocol"))
    if not token:
        raise Rejected("missing_token")
    if not isinstance(token, str):
        raise Rejected("malformed_token")
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise Rejected("exceeded_size")
    if not re.fullmatch(COMPACT_JWS, token) or not all(map(is_base64url, token.split("."))):
        raise Rejected("malformed_token")
    return token


def offered_token(subprotocols: object) -> str | None:
    """The token among the subprotocols that a client offers: `echo.v1, idToken.eyJ…`."""
    offered = [name.strip(" \t") for name in subprotocols.split(",")] if isinstance(subprotocols, str) else []
    tokens = [name.removeprefix(TOKEN_SUBPROTOCOL) for name in offered if name.startswith(TOKEN_SUBPROTOCOL)]
    if len(tokens) > 1:
        raise Rejected("repeated_sec-websocket-protocol")
    return tokens[0] if tokens else None


def sent(event: Event, part: Literal["headers", "queryStringParameters"], name: str) -> object:
    """What the client sent under this name, None if nothing; Rejected if it did so twice: which one is meant?

    A header's name is given in lower case here, its spelling is up to the client.
    """
    spelt = str.lower if part == "headers" else str
    values = [value for key, value in members(event, part) if spelt(key) == name]
    several = [value for key, value in members(event, MULTI_VALUE[part]) if spelt(key) == name]
    if len(values) > 1 or len(several) > 1 or any(isinstance(each, list) and len(each) > 1 for each in several):
        raise Rejected(f"repeated_{name}")
    return values[0] if values else None


def members(event: Event, name: str) -> list[tuple[str, Any]]:
    value = event.get(name)
    return list(value.items()) if isinstance(value, dict) else []


def connection_id(event: Event) -> str | None:
    """For logs, which take no lone surrogates."""
    value = dict(members(event, "requestContext")).get("connectionId")
    return value if isinstance(value, str) and value.isascii() else None


def is_base64url(segment: str) -> bool:
    """Whether it is what an encoder writes: one spelling for the same octets (RFC 4648 section 3.5)."""
    try:
        octets = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        return False
    return urlsafe_b64encode(octets).rstrip(b"=") == segment.encode()


def verified_claims(token: str) -> Claims:
    """The claims of an ID token that Cognito signed for this app client and that is valid now.

    Follows Cognito's "Verifying JSON web tokens" and RFC 8725.

    Raises:
        Rejected: the token is not all of that.
        KeySetUnavailable: the keys to judge it by cannot be had.
    """
    key = key_set.find(signing_kid(unverified_header(token)))
    if key is None:
        raise Rejected("unknown_kid")
    try:
        claims = json_object(jws.deserialize_compact(token, key, algorithms=["RS256"]).payload)
        CLAIMS.validate(claims)
    except ClaimError as error:
        raise Rejected(f"{error.error}.{error.claim}") from None
    except JoseError as error:
        raise Rejected(error.error) from None
    except (ValueError, RecursionError):
        raise Rejected("invalid_payload") from None
    check_types(claims)
    if claims["exp"] <= time.time():  # the leeway is for a clock behind Cognito's, not for tokens that have ended
        raise Rejected("expired_token.exp")
    if REQUIRED_GROUP and REQUIRED_GROUP not in groups(claims):
        raise Rejected("missing_group")
    return claims


def check_types(claims: Claims) -> None:
    """Refuses what joserfc lets pass: a list that contains the value, numbers that are no date."""
    for name in ("iss", "aud", "sub", "token_use"):
        if not isinstance(claims[name], str):
            raise Rejected(f"invalid_claim.{name}")
    if not re.fullmatch(SUBJECT, claims["sub"]):
        raise Rejected("invalid_claim.sub")
    for name in ("exp", "iat", "nbf", "auth_time"):
        value = claims.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LAST_NUMERIC_DATE:
            raise Rejected(f"invalid_claim.{name}")


def groups(claims: Claims) -> list[Any]:
    value = claims.get("cognito:groups")
    return value if isinstance(value, list) else []


def signing_kid(header: dict[str, Any]) -> str:
    """The `kid` of a header as Cognito writes it; Rejected for any other, before a key is looked up."""
    if header.get("alg") != "RS256":
        raise Rejected("unsupported_algorithm")
    if header.keys() - {"alg", "kid", "typ"}:  # Cognito sets no other: no crit, no jku, no jwk
        raise Rejected("unsupported_header")
    if str(header.get("typ", "JWT")).upper() != "JWT":
        raise Rejected("unsupported_type")
    kid = header.get("kid")
    if kid is None:
        raise Rejected("missing_kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID_CHARACTERS:
        raise Rejected("malformed_kid")
    return kid


def unverified_header(token: str) -> dict[str, Any]:
    segment = token.partition(".")[0]
    try:
        return json_object(urlsafe_b64decode(segment + "=="))
    except ValueError:
        raise Rejected("malformed_header") from None


def json_object(octets: bytes) -> dict[str, Any]:
    """ValueError or RecursionError if it is not one, strictly and in UTF-8 (RFC 7519 section 7.2)."""
    value = json.loads(octets.decode(), cls=StrictJSON)
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - as all other JSON that is not one
    return value


class StrictJSON(json.JSONDecoder):
    """JSON without what parsers disagree about: duplicate members, NaN, Infinity (RFC 7519 section 4)."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self.unique, parse_constant=self.refuse)

    @staticmethod
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            raise ValueError("duplicate member")
        return members

    @staticmethod
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")


class RemoteKeySet:
    """The issuer's signing keys by `kid`: downloaded on first use, kept across invocations.

    An unknown `kid` and old age both cause a download. After one that fails, or that does not bring the `kid`, there is
    none for the cooldown. While downloads fail, the last good keys serve until the hard age.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self._url = url
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str, RSAKey] = {}  # replaced, never changed
        self._downloaded_at = self._in_vain_at = float("-inf")
        self._failure: KeySetUnavailable | None = None

    def find(self, kid: str) -> RSAKey | None:
        """The key named `kid`, None if the issuer has no such key.

        Raises:
            KeySetUnavailable: whether it has one cannot be found out now.
        """
        key = self._known(kid)
        if not self._is_fresh(kid):
            # Whoever has a key that still serves waits for nobody else's download.
            if self._lock.acquire(blocking=key is None):
                try:
                    self._renew(kid)
                finally:
                    self._lock.release()
            key = self._known(kid)
            if key is None and self._failure:
                raise KeySetUnavailable(str(self._failure)) from self._failure
        return key

    def _age(self) -> float:
        return abs(self._clock() - self._downloaded_at)  # a clock that was put back makes them old, not new for ever

    def _known(self, kid: str) -> RSAKey | None:
        return self._keys.get(kid) if self._age() < JWKS_HARD_AGE_SECONDS else None

    def _is_fresh(self, kid: str) -> bool:
        return self._known(kid) is not None and self._age() < JWKS_SOFT_AGE_SECONDS

    def _renew(self, kid: str) -> None:
        """Unless somebody just has, or has tried to."""
        now = self._clock()
        cooldown = JWKS_COOLDOWN_SECONDS if self._age() < JWKS_HARD_AGE_SECONDS else JWKS_RETRY_SECONDS
        if self._is_fresh(kid) or abs(now - self._in_vain_at) < cooldown:
            return
        self._failure = KeySetUnavailable(f"{self._url} was not downloaded")  # nor will it be if we fail
        try:
            self._keys = usable_keys(
                Download(self._url).body(JWKS_RENEWAL_SECONDS if self._known(kid) else JWKS_SECONDS)
            )
        except KeySetUnavailable as failure:
            logger.error("key set unavailable", extra={"reason": str(failure)})
            self._failure = failure
        else:
            self._downloaded_at = now
            self._failure = None
        finally:
            in_vain = self._failure or kid not in self._keys
            self._in_vain_at = self._clock() if in_vain else float("-inf")


class Download:
    """The body at a URL, which is not followed elsewhere.

    It takes a thread: a socket's timeout starts anew with every byte, and name resolution has none.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = connect(parts.netloc, timeout=JWKS_CONNECT_SECONDS)
        self._path = parts.path
        self._url = url
        self._socket: socket.socket | None = None
        self._given_up = False

    def body(self, seconds: float) -> bytes:
        """KeySetUnavailable if it cannot be had, not in so many seconds, or is too large."""
        worker = ThreadPoolExecutor(1)
        try:
            with xray_recorder.in_subsegment("jwks"):
                status, body = worker.submit(self._get).result(seconds)
        except (OSError, HTTPException, ValueError) as error:
            raise KeySetUnavailable(f"{self._url}: {type(error).__name__}") from error
        finally:
            self._give_up()
            worker.shutdown(wait=False)
        if status != 200:
            raise KeySetUnavailable(f"{self._url} answered {status}")
        if len(body) > MAX_JWKS_BYTES:
            raise KeySetUnavailable(f"{self._url} sent over {MAX_JWKS_BYTES} bytes")
        return body

    def _get(self) -> tuple[int, bytes]:
        with closing(self._connection) as connection:
            connection.connect()
            self._socket = connection.sock
            if self._given_up:
                raise TimeoutError
            self._socket.settimeout(JWKS_SECONDS)
            connection.request("GET", self._path)
            body = b""
            with connection.getresponse() as response:
                while len(body) <= MAX_JWKS_BYTES and (chunk := response.read1(MAX_JWKS_BYTES)):
                    body += chunk
                return response.status, body

    def _give_up(self) -> None:
        """Wakes the worker, if it still waits: it reads no more."""
        self._given_up = True
        if self._socket:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def usable_keys(jwks: bytes) -> dict[str, RSAKey]:
    """The keys of a JWK Set that can verify RS256; all others are ignored (RFC 7517 section 5).

    Raises:
        KeySetUnavailable: it is not a JWK Set, it is too long, or no key of it can be used.
    """
    try:
        published = list(json.loads(jwks)["keys"])
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise KeySetUnavailable(f"the JWKS is malformed: {type(error).__name__}") from error
    if len(published) > MAX_KEYS:
        raise KeySetUnavailable(f"the JWKS has over {MAX_KEYS} keys")
    usable = [key for key in map(rs256_key, published) if key]
    by_thumbprint = {(str(key.kid), key.thumbprint()): key for key in usable}
    names = [kid for kid, _ in by_thumbprint]
    keys = {kid: key for (kid, _), key in by_thumbprint.items() if names.count(kid) == 1}  # or which one is meant?
    if not keys:
        raise KeySetUnavailable("the JWKS has no RSA signature key")
    return keys


def rs256_key(jwk: object) -> RSAKey | None:
    if not (isinstance(jwk, dict) and isinstance(jwk.get("kid"), str) and jwk["kid"]):
        return None
    if (jwk.get("kty"), jwk.get("use", "sig"), jwk.get("alg", "RS256")) != ("RSA", "sig", "RS256"):
        return None
    if jwk.keys() & PRIVATE_MEMBERS:  # everybody can sign with it
        return None
    try:
        key = RSAKey.import_key(jwk)
        key.check_key_op("verify")
    except (ValueError, TypeError, JoseError):
        return None
    return key if key.raw_value.key_size >= MIN_MODULUS_BITS else None


def policy(
    effect: Literal["Allow", "Deny"],
    method_arn: str,
    *,
    principal_id: str,
    context: dict[str, str] | None = None,
) -> Policy:
    """An authorizer's answer, https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-lambda-auth.html"""
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": method_arn}
    return {
        "principalId": principal_id,
        "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
        "context": context or {},
    }


def variable(name: str, pattern: str, default: str | None = None) -> str:
    """The environment variable's value; RuntimeError names it if it is malformed, or missing without a default."""
    value = os.environ.get(name) or default
    if value is None:
        raise RuntimeError(f"environment variable {name} is required")
    if not re.fullmatch(pattern, value):
        raise RuntimeError(f"environment variable {name} is malformed, it must match {pattern}")
    return value


def jwks_endpoint(default: str) -> str:
    """Where keys are downloaded; in plain text only from this machine, or from the one that this container is on."""
    name = "AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER"
    url = variable(name, r"https?://([\w.-]+|\[[0-9A-Fa-f:]+\])(:\d{1,5})?(/[^?#\s]*)?", default).rstrip("/")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise RuntimeError(f"environment variable {name} is malformed, no such address or port") from None
    if parts.scheme == "http" and not is_this_machine(parts.hostname or ""):
        raise RuntimeError(f"environment variable {name} is malformed, http:// is for this machine only: use https://")
    return url


def is_this_machine(host: str) -> bool:
    if host in {"localhost", "::1", "host.docker.internal", "host.containers.internal"}:
        return True
    return re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None or host == default_gateway()


def default_gateway() -> str | None:
    """The address of a container's host, by what Linux says of routes (proc(5), /proc/net/route)."""
    with suppress(OSError):
        for line in Path("/proc/net/route").read_text().splitlines()[1:]:
            _, destination, gateway, _, _, _, _, mask, *_ = line.split()
            if destination == mask == "00000000":
                return socket.inet_ntoa(int(gateway, 16).to_bytes(4, "little"))
    return None


# Init phase, once in an execution environment; it makes no network call.
USER_POOL_ID = variable("USER_POOL_ID", r"[a-z]{2}(-[a-z]+)+-\d+_[A-Za-z0-9]+")
APP_CLIENT_ID = variable("APP_CLIENT_ID", r"[A-Za-z0-9_+]{1,128}")
CREDENTIAL_MODE = variable("CREDENTIAL_MODE", "querystring|subprotocol", "querystring")
ALLOWED_ORIGINS = re.findall(ORIGIN, variable("ALLOWED_ORIGINS", rf"({ORIGIN}([,\s]+|$))*", ""))
ALLOW_MISSING_ORIGIN = variable("ALLOW_MISSING_ORIGIN", "true|false", "false") == "true"
REQUIRED_GROUP = variable("REQUIRED_GROUP", r"\S{0,128}", "")
CLOCK_SKEW_SECONDS = int(variable("CLOCK_SKEW_SECONDS", "[0-5]", "5"))
COGNITO_URL = f"https://cognito-idp.{USER_POOL_ID.partition('_')[0]}.amazonaws.com"
# Which of its two names a user pool signs with is a setting of it, IssuerConfigurationType of Cognito's API.
ISSUERS = [f"{url}/{USER_POOL_ID}" for url in (COGNITO_URL, COGNITO_URL.replace("://", "://issuer-"))]
CLAIMS = jwt.JWTClaimsRegistry(
    leeway=CLOCK_SKEW_SECONDS,
    iss={"essential": True, "values": ISSUERS},
    aud={"essential": True, "value": APP_CLIENT_ID},
    sub={"essential": True},
    exp={"essential": True},
    token_use={"essential": True, "value": "id"},
)
MULTI_VALUE = {"headers": "multiValueHeaders", "queryStringParameters": "multiValueQueryStringParameters"}
# The SDKs' own variable moves the download only; whose tokens are believed stays.
key_set = RemoteKeySet(f"{jwks_endpoint(COGNITO_URL)}/{USER_POOL_ID}/.well-known/jwks.json")
