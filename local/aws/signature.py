"""Verifies Signature Version 4: whether a request was signed with the credentials that it names.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html

Error types and texts are those that API Gateway was observed to return. The canonical request has the path encoded once
more than it was sent: `/%2540connections` for `/%40connections`, and `/%40connections` for `/@connections`.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from hashlib import sha256
from typing import NoReturn
from urllib.parse import parse_qsl, quote, quote_from_bytes, unquote_to_bytes

from botocore.utils import normalize_url_path
from multidict import CIMultiDictProxy

from local.aws.iam import ADMINISTRATOR, Iam, UnknownAccessKeyError

ALGORITHM = "AWS4-HMAC-SHA256"
TERMINATOR = "aws4_request"
TIME = "%Y%m%dT%H%M%SZ"
MINUTE = timedelta(minutes=1)
MAX_SKEW = 5 * MINUTE
MAX_LIFETIME = timedelta(days=7)
UNRESERVED = "-_.~"
PARAMETERS = ("Credential", "Signature", "SignedHeaders")

Headers = CIMultiDictProxy[str]


class SignatureError(Exception):
    """A request's signature is missing, malformed or wrong. The message and `type` are AWS's."""

    def __init__(self, type_: str, message: str) -> None:
        super().__init__(message)
        self.type = type_


@dataclass(frozen=True)
class Signature:
    """The signature in a request's `Authorization` header or query string.

    Attributes:
        scope: date, region, service and `aws4_request`.
        time: when the request was signed, e.g. `20261129T083000Z`.
        lifetime: how long the signature is valid.
    """

    access_key_id: str
    scope: tuple[str, ...]
    signed_headers: str
    value: str
    time: str
    token: str | None
    lifetime: timedelta

    @property
    def region(self) -> str:
        return self.scope[1]

    @property
    def service(self) -> str:
        return self.scope[2]

    @classmethod
    def parse(cls, target: str, headers: Headers) -> Signature:
        """Read the signature of a request.

        Raises:
            SignatureError: the request has no signature, or a part of the signature is missing.
        """
        query = dict(parse_qsl(target.partition("?")[2]))
        authorization = headers.get("Authorization")
        lifetime = MAX_SKEW
        if query.get("X-Amz-Algorithm") == ALGORITHM:
            given = {name.removeprefix("X-Amz-"): value for name, value in query.items()}
            time, token = given.get("Date", ""), given.get("Security-Token")
            if given.get("Expires", "").isdecimal():
                lifetime = min(timedelta(seconds=int(given["Expires"][:9])), MAX_LIFETIME)
            if missing := [name for name in (*PARAMETERS, "Date") if not given.get(name)]:
                required = " ".join(f"AWS query-string parameters must include 'X-Amz-{name}'." for name in missing)
                raise_incomplete(f"{required} Re-examine the query-string parameters.")
        elif authorization:
            given = parse_authorization(authorization)
            time, token = find_signing_time(headers), headers.get("X-Amz-Security-Token")
            missing = [f"'{name}' parameter" for name in PARAMETERS if not given.get(name)]
            missing += [] if time else ["existence of either a 'X-Amz-Date' or a 'Date' header"]
            if missing:
                required = " ".join(f"Authorization header requires {each}." for each in missing)
                raise_incomplete(
                    f"{required} (Hashed with SHA-256 and encoded with Base64) Authorization={hash_header(authorization)}"
                )
        else:
            raise SignatureError("MissingAuthenticationTokenException", "Missing Authentication Token")
        access_key_id, *scope = given["Credential"].split("/")
        if len(scope) != 4:
            raise_incomplete(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term,"
                f" got '{given['Credential']}'"
            )
        return cls(access_key_id, tuple(scope), given["SignedHeaders"], given["Signature"], time, token, lifetime)

    def check(self, iam: Iam, service: str, region: str) -> None:
        """Check credentials, scope and time. The body is not needed, so a refused request's body is never read.

        Raises:
            SignatureError: the access key is unknown, the scope is of another service or region, or the signature is
                expired.
        """
        self._find_secret(iam)
        if faults := "".join(f"{fault} " for fault in self._find_scope_faults(service, region)):
            raise_invalid(faults)
        if "host" not in self.signed_headers.split(";"):
            raise_invalid("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
        try:
            signed = datetime.strptime(self.time, TIME).replace(tzinfo=UTC)
        except ValueError:
            raise_incomplete(
                f"Date must be in ISO-8601 'basic format'. Got '{self.time}'. See http://en.wikipedia.org/wiki/ISO_8601"
            )
        now = datetime.now(UTC)
        earliest, latest = now - self.lifetime, now + MAX_SKEW
        if signed < earliest:
            reckoned = f"{earliest:{TIME}} ({now:{TIME}} - {self.lifetime / MINUTE:g} min.)"
            raise_invalid(f"Signature expired: {self.time} is now earlier than {reckoned}")
        if signed > latest:
            reckoned = f"{latest:{TIME}} ({now:{TIME}} + {MAX_SKEW / MINUTE:g} min.)"
            raise_invalid(f"Signature not yet current: {self.time} is still later than {reckoned}")

    def verify(self, iam: Iam, method: str, target: str, headers: Headers, body: bytes) -> None:
        """Compute the request's signature and compare it with the given one.

        Raises:
            SignatureError: the two differ. The message says what should have been signed.
        """
        canonical = build_canonical_request(method, target, headers, self.signed_headers, body)
        string = "\n".join(
            (ALGORITHM, self.time, "/".join(self.scope), sha256(canonical.encode(errors="surrogateescape")).hexdigest())
        )
        expected = hmac.digest(derive_signing_key(self._find_secret(iam), *self.scope), string.encode(), "sha256").hex()
        if not hmac.compare_digest(expected.encode(), self.value.encode(errors="surrogateescape")):
            raise_invalid(
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret"
                " Access Key and signing method. Consult the service documentation for details."
                f"\n\nThe Canonical String for this request should have been\n'{canonical}'"
                f"\n\nThe String-to-Sign should have been\n'{string}'\n"
            )

    def _find_secret(self, iam: Iam) -> str:
        if self.access_key_id == ADMINISTRATOR:
            return ADMINISTRATOR
        session = iam.sessions.get(self.access_key_id)
        if session is None or session.session_token != self.token:
            raise SignatureError("UnrecognizedClientException", str(UnknownAccessKeyError()))
        return session.secret_access_key

    def _find_scope_faults(self, service: str, region: str) -> Iterator[str]:
        date = self.scope[0]
        if self.region != region:
            yield "Credential should be scoped to a valid region."
        if self.service != service:
            yield f"Credential should be scoped to correct service: '{service}'."
        if self.scope[3] != TERMINATOR:
            yield f"Credential should be scoped with a valid terminator: '{TERMINATOR}'."
        if not self.time.startswith(date):
            yield (
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP:"
                f" '{date}' != '{self.time[:8]}', from '{self.time}'."
            )


def parse_authorization(header: str) -> dict[str, str]:
    """Return the parameters of an `Authorization` header."""
    parts = [part.strip() for part in header.partition(" ")[2].split(",")]
    if not all("=" in part for part in parts):
        raise_incomplete(
            "Invalid key=value pair (missing equal-sign) in Authorization header"
            f" (hashed with SHA-256 and encoded with Base64): '{hash_header(header)}'."
        )
    return {name: value for name, _, value in (part.partition("=") for part in parts)}


def hash_header(header: str) -> str:
    """Return the hash that AWS's messages have instead of a header, which may contain a secret."""
    return b64encode(sha256(header.encode(errors="surrogateescape")).digest()).decode()


def find_signing_time(headers: Headers) -> str:
    """Return the time of signing from X-Amz-Date or Date; an empty text if a request has no such header."""
    if time := headers.get("X-Amz-Date"):
        return time
    date = headers.get("Date", "")
    try:
        return parsedate_to_datetime(date).astimezone(UTC).strftime(TIME)
    except (ValueError, OverflowError):
        return date


def build_canonical_request(method: str, target: str, headers: Headers, signed_headers: str, body: bytes) -> str:
    path, _, query = target.partition("?")
    names = signed_headers.split(";")
    lines = (f"{name}:{','.join(' '.join(each.split()) for each in headers.getall(name, ()))}" for name in names)
    return "\n".join(
        (
            method,
            quote(normalize_url_path(path), safe="/~", errors="surrogateescape"),
            build_canonical_query(query) if query else "",
            *lines,
            "",
            signed_headers,
            sha256(body).hexdigest(),
        )
    )


def build_canonical_query(query: str) -> str:
    pairs = sorted(
        tuple(quote_from_bytes(unquote_to_bytes(part), safe=UNRESERVED) for part in pair.split("=", 1))
        for pair in query.split("&")
        if not pair.startswith("X-Amz-Signature=")
    )
    return "&".join("=".join((*pair, "")[:2]) for pair in pairs)


@lru_cache(maxsize=64)
def derive_signing_key(secret: str, *scope: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def raise_incomplete(message: str) -> NoReturn:
    raise SignatureError("IncompleteSignatureException", message)


def raise_invalid(message: str) -> NoReturn:
    raise SignatureError("InvalidSignatureException", message)
