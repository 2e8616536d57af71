"""Signatures of requests: botocore's are accepted, and errors are those that AWS was observed to return."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from local.aws import signature
from local.aws.iam import Iam, Role, Session
from local.aws.signature import Signature, SignatureError

HOST = "abcdef123.execute-api.us-east-1.amazonaws.com"
PATH = "/prod/@connections/L0SM9cOFvHcCIhw%3D"
NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
SIGNED_AT = "20261129T120000Z"
SCOPE = "test/20261129/us-east-1/execute-api/aws4_request"
WRONG_SERVICE = "Credential should be scoped to correct service: 'execute-api'. "
INVALID, INCOMPLETE = "InvalidSignatureException", "IncompleteSignatureException"


@pytest.fixture
def iam() -> Iam:
    return Iam()


@pytest.fixture
def session(iam: Iam) -> Session:
    return iam.open_session("rooms", Role("RoomsRole", ()), "arn:aws:sts::000000000000:assumed-role/RoomsRole/Rooms")


def credentials(session: Session) -> Credentials:
    return Credentials(session.access_key_id, session.secret_access_key, session.session_token)


def request(target: str = PATH, body: bytes = b"hello", method: str = "POST", **headers: str) -> AWSRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return AWSRequest(method, f"https://{HOST}{target}", {"Host": HOST, **named}, body)


def verify(iam: Iam, request: AWSRequest, **changes: Any) -> None:
    """Verify a request that was changed like this after it was signed."""
    assert request.url is not None
    target = request.url.removeprefix(f"https://{HOST}")
    headers = CIMultiDictProxy(CIMultiDict(request.headers.items()))
    arrived = {"method": request.method, "target": target, "headers": headers, "body": request.body or b"", **changes}
    parsed = Signature.parse(arrived["target"], arrived["headers"])
    parsed.check(iam, "execute-api", "us-east-1")
    parsed.verify(iam, **arrived)


def get_refusal(iam: Iam, request: AWSRequest, **changes: Any) -> tuple[str, str]:
    """Return the type and message of the error."""
    with pytest.raises(SignatureError) as error:
        verify(iam, request, **changes)
    return error.value.type, str(error.value)


@pytest.mark.parametrize(
    "target",
    [
        PATH,
        "/prod/%40connections/L0SM9cOFvHcCIhw%3D",
        "/prod/@connections/L0SM9cOFvHcCIhw=",
        "//prod/./x/../@connections//%E3%81%B2",
        f"{PATH}?b=2&a=1&a=0&c=&d=%20%2B%2F~",
    ],
)
def test_request_signed_by_botocore_is_accepted(iam: Iam, session: Session, target: str) -> None:
    signed = request(target, body=b"\x00\xff" * 1000, Content_Type="text/plain", X="  two   words ")
    presigned = request(target, b"", "GET")
    SigV4Auth(credentials(session), "execute-api", "us-east-1").add_auth(signed)
    SigV4QueryAuth(credentials(session), "execute-api", "us-east-1").add_auth(presigned)

    verify(iam, signed)
    verify(iam, presigned)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "DELETE"},
        {"target": PATH.replace("L0", "M0")},
        {"target": PATH.replace("@", "%40")},
        {"target": f"{PATH}?a=1"},
        {"body": b"other"},
    ],
    ids=repr,
)
def test_request_that_differs_from_the_signed_one_is_refused(iam: Iam, change: dict[str, Any]) -> None:
    signed = request()
    SigV4Auth(Credentials("test", "test"), "execute-api", "us-east-1").add_auth(signed)

    assert get_refusal(iam, signed, **change)[0] == INVALID


@pytest.mark.parametrize("name", ["Host", "X-Amz-Date", "Content-Type"])
def test_request_with_another_signed_header_is_refused(iam: Iam, name: str) -> None:
    signed = request(Content_Type="text/plain")
    SigV4Auth(Credentials("test", "test"), "execute-api", "us-east-1").add_auth(signed)
    del signed.headers[name]
    signed.headers[name] = datetime.now(UTC).strftime("%Y%m%dT000000Z") if name == "X-Amz-Date" else "other"

    assert get_refusal(iam, signed)[0] == INVALID


def test_mismatch_is_explained_as_by_aws(iam: Iam) -> None:
    """Captured from API Gateway: https://github.com/okigan/awscurl/issues/61."""
    headers = {
        "Host": "spjhtm1qcd.execute-api.us-east-1.amazonaws.com",
        "X-Amz-Date": "20190603T171519Z",
        "Authorization": f"AWS4-HMAC-SHA256 Credential={SCOPE.replace('20261129', '20190603')},"
        " SignedHeaders=host;x-amz-date, Signature=0",
    }
    target, arrived = "/test/@connections/atntqfjloAMCECg=", CIMultiDictProxy(CIMultiDict(headers))

    with pytest.raises(SignatureError) as error:
        Signature.parse(target, arrived).verify(iam, "POST", target, arrived, b"hello")

    assert str(error.value) == (
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access"
        " Key and signing method. Consult the service documentation for details.\n\n"
        "The Canonical String for this request should have been\n"
        "'POST\n/test/%40connections/atntqfjloAMCECg%3D\n\n"
        "host:spjhtm1qcd.execute-api.us-east-1.amazonaws.com\nx-amz-date:20190603T171519Z\n\n"
        "host;x-amz-date\n2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824'\n\n"
        "The String-to-Sign should have been\n"
        "'AWS4-HMAC-SHA256\n20190603T171519Z\n20190603/us-east-1/execute-api/aws4_request\n"
        "b013b0bc1c19a4ebc9da8d82a6122379899465e0cd4808187a4ca276e999c56a'\n"
    )


@pytest.mark.parametrize(
    ("sent", "counts_as"),
    [
        ("/dev/%40connections/asnFYeJtCGYCEZQ%3D", "/dev/%2540connections/asnFYeJtCGYCEZQ%253D"),
        ("/dev/@connections/OoJBxe3PywMCHWA%3D", "/dev/%40connections/OoJBxe3PywMCHWA%253D"),
        ("/$default/%40connections/P-S_9e-7liACH9A%3D", "/%24default/%2540connections/P-S_9e-7liACH9A%253D"),
    ],
)
def test_path_is_encoded_once_more_than_it_was_sent(sent: str, counts_as: str) -> None:
    """Captured from API Gateway: Paw-AWSSignature4DynamicValue#23, aws-lambda-graphql#171, aws-sdk-net#3132."""
    headers = CIMultiDictProxy(CIMultiDict({"Host": "x"}))

    assert signature.build_canonical_request("POST", sent, headers, "host", b"").splitlines()[1] == counts_as


# Who signs, when, and for what


def test_wrong_secret_is_refused(iam: Iam, session: Session) -> None:
    signed = request()
    wrong = Credentials(session.access_key_id, "wrong", session.session_token)
    SigV4Auth(wrong, "execute-api", "us-east-1").add_auth(signed)

    assert get_refusal(iam, signed)[0] == INVALID


@pytest.mark.parametrize("token", [None, "other"])
def test_session_needs_its_token(iam: Iam, session: Session, token: str | None) -> None:
    signed = request()
    partial = Credentials(session.access_key_id, session.secret_access_key, token)
    SigV4Auth(partial, "execute-api", "us-east-1").add_auth(signed)

    expected = ("UnrecognizedClientException", "The security token included in the request is invalid.")
    assert get_refusal(iam, signed) == expected


@pytest.mark.parametrize(
    ("service", "region", "message"),
    [
        ("execute-api", "eu-west-1", "Credential should be scoped to a valid region. "),
        ("apigateway", "us-east-1", WRONG_SERVICE),
        (
            "lambda",
            "eu-west-1",
            f"Credential should be scoped to a valid region. {WRONG_SERVICE}",
        ),
    ],
)
def test_signature_for_something_else_is_refused(iam: Iam, service: str, region: str, message: str) -> None:
    """Captured from API Gateway: aws-sdk-js-v3#1831, insomnia#830, n8n#21337."""
    signed = request()
    SigV4Auth(Credentials("test", "test"), service, region).add_auth(signed)

    assert get_refusal(iam, signed) == (INVALID, message)


class Clock(datetime):
    reading = NOW

    @classmethod
    def now(cls, _: object = None) -> datetime:  # type: ignore[override]
        return cls.reading


def build_handwritten(parameters: str, **headers: str) -> AWSRequest:
    """Return a request with a handwritten Authorization header or query string."""
    headers = {"X_Amz_Date": SIGNED_AT, "Authorization": f"AWS4-HMAC-SHA256 {parameters}", **headers}
    return request(PATH, b"hello", "POST", **headers)


QUERY = ["X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-Signature", "X-Amz-SignedHeaders", "other"]
HEADERS = ["Date", "X-Amz-Date", "X-Amz-Security-Token", "Host"]
TEXTS = st.text("aZ09/=,;:-. \t\0é\udc80") | st.sampled_from(["9" * 999, SCOPE, SIGNED_AT, "1 Jan 0001 00:00 +2359"])
COMPLETE = f"Credential={SCOPE}, SignedHeaders=host;x-amz-date, Signature=0"


@pytest.mark.parametrize(
    ("minutes", "message"),
    [
        (-6, "Signature expired: 20261129T115400Z is now earlier than 20261129T115500Z (20261129T120000Z - 5 min.)"),
        (
            6,
            (
                "Signature not yet current: 20261129T120600Z is still later than"
                " 20261129T120500Z (20261129T120000Z + 5 min.)"
            ),
        ),
    ],
)
def test_signature_is_valid_for_five_minutes(
    iam: Iam, monkeypatch: pytest.MonkeyPatch, minutes: int, message: str
) -> None:
    """Captured from API Gateway: mhart/aws4#118, NickWaterton/Roomba980-Python#118."""
    monkeypatch.setattr(signature, "datetime", Clock)
    signed_at = (NOW + timedelta(minutes=minutes)).strftime(signature.TIME)

    assert get_refusal(iam, build_handwritten(COMPLETE, X_Amz_Date=signed_at)) == (INVALID, message)


def test_header_date_may_be_the_time(iam: Iam) -> None:
    signed = request(Date="now")
    SigV4Auth(Credentials("test", "test"), "execute-api", "us-east-1").add_auth(signed)

    verify(iam, signed)


def test_presigned_request_is_valid_as_long_as_it_says(iam: Iam, monkeypatch: pytest.MonkeyPatch) -> None:
    signed = request(body=b"", method="GET")
    SigV4QueryAuth(Credentials("test", "test"), "execute-api", "us-east-1", expires=3600).add_auth(signed)
    later = datetime.now(UTC)
    monkeypatch.setattr(signature, "datetime", Clock)

    monkeypatch.setattr(Clock, "reading", later + timedelta(minutes=59))
    verify(iam, signed)
    monkeypatch.setattr(Clock, "reading", later + timedelta(minutes=61))
    assert "- 60 min.)" in get_refusal(iam, signed)[1]


@settings(database=None, deadline=None, derandomize=True)
@given(
    query=st.dictionaries(st.sampled_from(QUERY), TEXTS),
    headers=st.dictionaries(st.sampled_from(HEADERS), TEXTS),
    authorization=st.none() | TEXTS | TEXTS.map(lambda text: f"AWS4-HMAC-SHA256 {COMPLETE}{text}"),
)
def test_any_request_gets_an_answer(query: dict[str, str], headers: dict[str, str], authorization: str) -> None:
    target = (
        f"{PATH}?X-Amz-Algorithm={signature.ALGORITHM}&{urlencode(query, errors='surrogateescape')}" if query else PATH
    )
    arrived = headers | ({"Authorization": authorization} if authorization else {})

    with pytest.raises(SignatureError):
        verify(Iam(), request(), target=target, headers=CIMultiDictProxy(CIMultiDict(arrived)))


@pytest.mark.parametrize(
    ("signed", "type_", "message"),
    [
        (request(), "MissingAuthenticationTokenException", "Missing Authentication Token"),
        (
            request(Authorization="Bearer abc"),
            INCOMPLETE,
            (
                "Invalid key=value pair (missing equal-sign) in Authorization header (hashed with SHA-256 and encoded with"
                " Base64): 'w1Xc6WwWEogNEZQP/dkBTThsJT4MNlKmzQanIm970rY='."
            ),
        ),
        (
            request(Authorization="Basic YTpi="),
            INCOMPLETE,
            (
                "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter."
                " Authorization header requires 'SignedHeaders' parameter. Authorization header requires existence of"
                " either a 'X-Amz-Date' or a 'Date' header. (Hashed with SHA-256 and encoded with Base64)"
                " Authorization=tfPysZrU720W7KcwExDE4oLWa7sgFT8KOS3YneReoec="
            ),
        ),
        (
            build_handwritten("Credential=test/us-east-1, SignedHeaders=host, Signature=0"),
            INCOMPLETE,
            (
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term,"
                " got 'test/us-east-1'"
            ),
        ),
        (
            build_handwritten(COMPLETE, X_Amz_Date="2026-11-29"),
            INVALID,
            (
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP:"
                " '20261129' != '2026-11-', from '2026-11-29'. "
            ),
        ),
        (
            build_handwritten(COMPLETE, X_Amz_Date="20261129"),
            INCOMPLETE,
            "Date must be in ISO-8601 'basic format'. Got '20261129'. See http://en.wikipedia.org/wiki/ISO_8601",
        ),
        (
            build_handwritten(COMPLETE.replace("aws4_request", "aws4")),
            INVALID,
            "Credential should be scoped with a valid terminator: 'aws4_request'. ",
        ),
        (
            build_handwritten(COMPLETE.replace("host;", "")),
            INVALID,
            "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.",
        ),
        (
            request(f"{PATH}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a&X-Amz-Date={SIGNED_AT}"),
            INCOMPLETE,
            (
                "AWS query-string parameters must include 'X-Amz-Signature'. AWS query-string parameters must include"
                " 'X-Amz-SignedHeaders'. Re-examine the query-string parameters."
            ),
        ),
    ],
)
def test_error_says_what_is_wrong_with_a_signature(
    iam: Iam, monkeypatch: pytest.MonkeyPatch, signed: AWSRequest, type_: str, message: str
) -> None:
    monkeypatch.setattr(signature, "datetime", Clock)

    assert get_refusal(iam, signed) == (type_, message)
