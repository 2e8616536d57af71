"""Lambda authorizer of `$connect`: lets in whoever brings a valid ID token of the user pool, nobody else."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any, Literal

import urllib3
from aws_xray_sdk.core import xray_recorder
from joserfc import jwt
from joserfc.errors import ClaimError, JoseError
from joserfc.jwk import RSAKey

logger = logging.getLogger(__name__)
logging.getLogger("aws_xray_sdk").setLevel(logging.ERROR)  # it warns wherever there is no trace to join
xray_recorder.configure(context_missing="IGNORE_ERROR")

COMPACT_JWS = r"[A-Za-z0-9_-]{1,683}(\.[A-Za-z0-9_-]+){2}"  # joserfc takes headers up to 512 bytes
MAX_TOKEN_CHARACTERS = 8192
CLOCK_LEEWAY_SECONDS = 5
MIN_MODULUS_BITS = 2048  # RFC 7518 section 3.3
MAX_JWKS_BYTES = 64 * 1024
JWKS_TIMEOUT_SECONDS = urllib3.Timeout(connect=1.0, read=2.0)
JWKS_DOWNLOAD_SECONDS = 3.0  # for the whole body, however slowly it drips
JWKS_COOLDOWN_SECONDS = 10.0  # between two downloads, whatever kids the tokens name
JWKS_SOFT_AGE_SECONDS = 3600.0  # then it is downloaded anew, and a withdrawn key is gone
JWKS_HARD_AGE_SECONDS = 86400.0  # then keys that could not be renewed are no longer trusted

Event = dict[str, Any]
Policy = dict[str, Any]
Claims = dict[str, Any]


class TokenRejected(Exception):
    """The caller's fault; the message is a reason code for logs and never quotes the token."""


class KeySetUnavailable(Exception):
    """Our fault: the user pool's keys cannot be had, so the token cannot be judged."""


def handler(event: Event, context: object) -> Policy:
    try:
        claims = verified_claims(id_token(event))
    except TokenRejected as rejection:
        logger.warning("token rejected", extra={"reason": str(rejection)})
        return policy("Deny", event["methodArn"], principal_id="anonymous")
    logger.info("token accepted", extra={"sub": claims["sub"]})
    return policy(
        "Allow",
        event["methodArn"],
        principal_id=claims["sub"],
        context={"userId": claims["sub"], "exp": str(int(claims["exp"]))},
    )


def id_token(event: Event) -> str:
    parameters = event.get("queryStringParameters")
    token = parameters.get("idToken") if isinstance(parameters, dict) else None
    if not token:
        raise TokenRejected("missing_token")
    if not isinstance(token, str) or not re.fullmatch(COMPACT_JWS, token):
        raise TokenRejected("malformed_token")
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise TokenRejected("exceeded_size")
    return token


def verified_claims(token: str) -> Claims:
    """The claims of an ID token that Cognito signed for this app client and that is valid now.

    Follows Cognito's "Verifying JSON web tokens" and RFC 8725.

    Raises:
        TokenRejected: the token is not all of that.
        KeySetUnavailable: the keys to judge it by cannot be had.
    """
    header = unverified_header(token)
    if header.get("alg") != "RS256":
        raise TokenRejected("unsupported_algorithm")
    if header.keys() - {"alg", "kid", "typ"}:  # Cognito sets no other: no crit, no jku, no jwk
        raise TokenRejected("unsupported_header")
    key = key_set.find(header.get("kid"))
    if key is None:
        raise TokenRejected("unknown_kid")
    try:
        claims = jwt.decode(token, key, algorithms=["RS256"], decoder_cls=StrictJSON).claims
        CLAIMS.validate(claims)
    except ClaimError as error:
        raise TokenRejected(f"{error.error}.{error.claim}") from None
    except JoseError as error:
        raise TokenRejected(error.error) from None
    for name in ("iss", "aud", "sub", "token_use"):
        if not isinstance(claims[name], str):  # joserfc also takes a list that contains the value
            raise TokenRejected(f"invalid_claim.{name}")
    if claims["exp"] <= time.time():  # the leeway is for a clock behind Cognito's, not for tokens that have ended
        raise TokenRejected("expired_token.exp")
    return claims


def unverified_header(token: str) -> dict[str, Any]:
    segment = token.partition(".")[0]
    try:
        header = json.loads(urlsafe_b64decode(segment + "==").decode(), cls=StrictJSON)
    except ValueError:
        raise TokenRejected("malformed_header") from None
    if not isinstance(header, dict):
        raise TokenRejected("malformed_header")
    return header


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

    An unknown `kid` and old age both cause a download, at most one per cooldown. While downloads
    fail, the last good keys serve until the hard age.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self._url = url
        self._clock = clock
        self._http = urllib3.PoolManager(retries=False)
        self._lock = threading.Lock()
        self._keys: dict[str, RSAKey] = {}
        self._downloaded_at = self._tried_at = float("-inf")
        self._failure: KeySetUnavailable | None = None

    def find(self, kid: object) -> RSAKey | None:
        """The key named `kid`, None if the issuer has no such key.

        Raises:
            KeySetUnavailable: whether it has one cannot be found out now.
        """
        if not isinstance(kid, str):
            return None
        with self._lock:
            now = self._clock()
            stale = now - self._downloaded_at >= JWKS_SOFT_AGE_SECONDS
            if (stale or kid not in self._keys) and now - self._tried_at >= JWKS_COOLDOWN_SECONDS:
                self._tried_at = now
                self._renew(now)
            if now - self._downloaded_at >= JWKS_HARD_AGE_SECONDS:
                self._keys = {}
            if kid not in self._keys and self._failure:
                raise KeySetUnavailable(str(self._failure)) from self._failure
            return self._keys.get(kid)

    def _renew(self, now: float) -> None:
        try:
            self._keys = usable_keys(self._download())
        except KeySetUnavailable as failure:
            logger.error("key set unavailable", extra={"reason": str(failure)})
            self._failure = failure
        else:
            self._downloaded_at = now
            self._failure = None

    def _download(self) -> bytes:
        deadline = time.monotonic() + JWKS_DOWNLOAD_SECONDS
        body = b""
        try:
            with (
                xray_recorder.in_subsegment("jwks"),
                self._http.request(
                    "GET",
                    self._url,
                    timeout=JWKS_TIMEOUT_SECONDS,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                ) as response,
            ):
                if response.status != 200:
                    raise KeySetUnavailable(f"{self._url} answered {response.status}")
                while chunk := response.read1(MAX_JWKS_BYTES):
                    body += chunk
                    if len(body) > MAX_JWKS_BYTES:
                        raise KeySetUnavailable(f"{self._url} sent over {MAX_JWKS_BYTES} bytes")
                    if time.monotonic() > deadline:
                        raise KeySetUnavailable(f"{self._url} took over {JWKS_DOWNLOAD_SECONDS} s")
        except urllib3.exceptions.HTTPError as error:
            raise KeySetUnavailable(f"{self._url}: {type(error).__name__}") from error
        return body


def usable_keys(jwks: bytes) -> dict[str, RSAKey]:
    """The keys of a JWK Set that can verify RS256; all others are ignored (RFC 7517 section 5).

    Raises:
        KeySetUnavailable: it is not a JWK Set, or no key of it can be used.
    """
    try:
        keys = [rs256_key(jwk) for jwk in json.loads(jwks)["keys"]]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise KeySetUnavailable(f"the JWKS is malformed: {type(error).__name__}") from error
    usable = {str(key.kid): key for key in keys if key}
    if not usable:
        raise KeySetUnavailable("the JWKS has no RSA signature key")
    return usable


def rs256_key(jwk: object) -> RSAKey | None:
    if not (isinstance(jwk, dict) and isinstance(jwk.get("kid"), str) and jwk["kid"]):
        return None
    if (jwk.get("kty"), jwk.get("use", "sig"), jwk.get("alg", "RS256")) != ("RSA", "sig", "RS256"):
        return None
    try:
        key = RSAKey.import_key(jwk)
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


def required(name: str, pattern: str) -> str:
    """The environment variable's value; RuntimeError names it if it is missing or malformed."""
    value = os.environ.get(name, "")
    if not value:
        raise RuntimeError(f"environment variable {name} is required")
    if not re.fullmatch(pattern, value):
        raise RuntimeError(f"environment variable {name} is malformed, it must match {pattern}")
    return value


# Init phase, once in an execution environment; it makes no network call.
USER_POOL_ID = required("USER_POOL_ID", r"[a-z]{2}(-[a-z]+)+-\d+_[A-Za-z0-9]+")
APP_CLIENT_ID = required("APP_CLIENT_ID", r"[A-Za-z0-9_+]{1,128}")
COGNITO_URL = f"https://cognito-idp.{USER_POOL_ID.partition('_')[0]}.amazonaws.com"
ISSUER = f"{COGNITO_URL}/{USER_POOL_ID}"
CLAIMS = jwt.JWTClaimsRegistry(
    leeway=CLOCK_LEEWAY_SECONDS,
    iss={"essential": True, "value": ISSUER},
    aud={"essential": True, "value": APP_CLIENT_ID},
    sub={"essential": True},
    exp={"essential": True},
    token_use={"essential": True, "value": "id"},
)
# The SDKs' own variable moves the download only; whose tokens are believed stays.
JWKS_ENDPOINT = (os.environ.get("AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER") or COGNITO_URL).rstrip("/")
key_set = RemoteKeySet(f"{JWKS_ENDPOINT}/{USER_POOL_ID}/.well-known/jwks.json")
