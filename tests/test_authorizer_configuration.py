"""What the authorizer is told by its environment: in its init phase it takes that, or stops and names the variable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import (
    APP_CLIENT_ID,
    ISSUER,
    JWKS_PATH,
    USER_POOL_ID,
    Authorize,
    ColdStart,
    LoopbackServer,
    Refusal,
    Sign,
    effect,
)

ENDPOINT = "AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER"
# As Linux writes it, proc(5), in a container of Docker's own bridge network.
ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0
"""

JwksUrl = Callable[[str], str]


def with_routes(monkeypatch: pytest.MonkeyPatch, table: str | None) -> None:
    """This is what /proc/net/route says, or there is none, as on other systems than Linux."""
    read_text = Path.read_text

    def read(self: Path, *arguments: str) -> str:
        if self != Path("/proc/net/route"):
            return read_text(self, *arguments)
        if table is None:
            raise FileNotFoundError(self)
        return table

    monkeypatch.setattr(Path, "read_text", read)


@pytest.fixture
def jwks_url(monkeypatch: pytest.MonkeyPatch, cold_start: ColdStart) -> JwksUrl:
    """Where keys will be downloaded with this endpoint URL, in a container of Docker's own network."""
    with_routes(monkeypatch, ROUTES)

    def url(endpoint: str) -> str:
        authorizer = cold_start(
            "authorizer", USER_POOL_ID=USER_POOL_ID, APP_CLIENT_ID=APP_CLIENT_ID, **{ENDPOINT: endpoint}
        )
        return str(authorizer.handler.jwks._url)

    return url


# Malformed values


@pytest.mark.parametrize("name", ["USER_POOL_ID", "APP_CLIENT_ID"])
@pytest.mark.parametrize("environ", [{}, {"USER_POOL_ID": "", "APP_CLIENT_ID": ""}], ids=["unset", "empty"])
def test_missing_variable_stops_the_init_phase_and_is_named(
    cold_start: ColdStart, name: str, environ: dict[str, str]
) -> None:
    others = {"USER_POOL_ID": USER_POOL_ID, "APP_CLIENT_ID": APP_CLIENT_ID}
    del others[name]

    with pytest.raises(RuntimeError, match=f"^environment variable {name} is required$"):
        cold_start("authorizer", **environ | others)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("USER_POOL_ID", "Example01"),
        ("USER_POOL_ID", "us-east-1_Example01/secret"),
        ("USER_POOL_ID", "https://example.com/"),
        ("APP_CLIENT_ID", "https://example.com/"),
        ("APP_CLIENT_ID", "a" * 129),
        ("CREDENTIAL_MODE", "header"),
        ("CREDENTIAL_MODE", "Subprotocol"),
        ("CREDENTIAL_MODE", "querystring,subprotocol"),
        ("ALLOWED_ORIGINS", " "),
        ("ALLOWED_ORIGINS", ","),
        ("ALLOWED_ORIGINS", "*"),
        ("ALLOWED_ORIGINS", "null"),
        ("ALLOWED_ORIGINS", "app.example.com"),
        ("ALLOWED_ORIGINS", "https://"),
        ("ALLOWED_ORIGINS", "https://*.example.com"),
        ("ALLOWED_ORIGINS", "https://app.example.com/"),
        ("ALLOWED_ORIGINS", "https://APP.example.com"),
        ("ALLOWED_ORIGINS", "HTTPS://app.example.com"),
        ("ALLOWED_ORIGINS", "https://ada@app.example.com"),
        ("ALLOWED_ORIGINS", "https://app.example.com?"),
        ("ALLOWED_ORIGINS", "https://app.example.com#"),
        ("ALLOWED_ORIGINS", "https://app.example.com;https://example.com"),
        ("ALLOWED_ORIGINS", "https://app.example.com,example.com"),
        ("ALLOW_MISSING_ORIGIN", "yes"),
        ("ALLOW_MISSING_ORIGIN", "True"),
        ("ALLOW_MISSING_ORIGIN", "1"),
        ("REQUIRED_GROUP", "two words"),
        ("REQUIRED_GROUP", "a" * 129),
        ("CLOCK_SKEW_SECONDS", "6"),
        ("CLOCK_SKEW_SECONDS", "-1"),
        ("CLOCK_SKEW_SECONDS", "1.5"),
        ("CLOCK_SKEW_SECONDS", "five"),
    ],
)
def test_malformed_variable_stops_the_init_phase_and_is_named(cold_start: ColdStart, name: str, value: str) -> None:
    environ = {"USER_POOL_ID": USER_POOL_ID, "APP_CLIENT_ID": APP_CLIENT_ID, name: value}

    with pytest.raises(RuntimeError, match=f"^environment variable {name} is malformed, it must match "):
        cold_start("authorizer", **environ)


# Where the keys are downloaded


@pytest.mark.parametrize("environ", [{}, {ENDPOINT: ""}], ids=["unset", "empty"])
def test_keys_come_from_the_user_pool_in_its_own_region(cold_start: ColdStart, environ: dict[str, str]) -> None:
    authorizer = cold_start("authorizer", USER_POOL_ID="eu-west-3_Example01", APP_CLIENT_ID=APP_CLIENT_ID, **environ)

    with pytest.raises(
        authorizer.KeySetUnavailable,
        match=r"^https://cognito-idp\.eu-west-3\.amazonaws\.com/eu-west-3_Example01/\.well-known/jwks\.json: ",
    ):
        authorizer.handler.jwks.find("any")


def test_an_endpoint_url_may_have_a_path_and_end_with_a_slash(cold_start: ColdStart, jwks: LoopbackServer) -> None:
    environ = {ENDPOINT: f"{jwks.url}/cognito/"}
    authorizer = cold_start("authorizer", USER_POOL_ID=USER_POOL_ID, APP_CLIENT_ID=APP_CLIENT_ID, **environ)

    assert authorizer.handler.jwks.find("signing1example=")
    assert [request.path for request in jwks.requests] == [f"/cognito{JWKS_PATH}"]


def test_an_endpoint_url_moves_the_download_but_not_whose_tokens_are_believed(
    authorize: Authorize, refusal: Refusal, sign: Sign, jwks: LoopbackServer
) -> None:
    assert effect(authorize(sign(iss=ISSUER))) == "Allow"
    assert [(request.method, request.path) for request in jwks.requests] == [("GET", JWKS_PATH)]
    assert refusal(sign(iss=f"{jwks.url}/{USER_POOL_ID}")) == "invalid_claim.iss"


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://cognito.example.com",
        "https://198.51.100.7:8443/eu",
        "https://[2001:db8::7]:8443",
        "http://127.0.0.1:4511",
        "http://127.255.255.254",
        "http://localhost:4511",
        "http://[::1]:4511",
        "http://host.docker.internal:4511",
        "http://host.containers.internal:4511",
    ],
)
def test_keys_are_downloaded_by_https_or_from_this_machine(jwks_url: JwksUrl, endpoint: str) -> None:
    assert jwks_url(endpoint) == f"{endpoint}{JWKS_PATH}"


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://cognito.example.com",
        "http://198.51.100.7:4511",
        "http://10.0.0.1",
        "http://128.0.0.1",
        "http://0.0.0.0",
        "http://[::2]",
        "http://[2001:db8::1]",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://host.docker.internal.example.com",
        "http://mylocalhost",
        "http://127.1",
    ],
)
def test_plain_text_from_another_machine_stops_the_init_phase(jwks_url: JwksUrl, endpoint: str) -> None:
    with pytest.raises(RuntimeError, match=f"^environment variable {ENDPOINT} is malformed, http:// is for this "):
        jwks_url(endpoint)


@pytest.mark.parametrize(
    "endpoint",
    [
        "ftp://127.0.0.1",
        "file:///etc/passwd",
        "//127.0.0.1",
        "127.0.0.1:4511",
        "https://",
        "https://:443",
        "HTTPS://127.0.0.1",
        "https://ada:secret@cognito.example.com",
        "https://ada@cognito.example.com",
        "http://127.0.0.1@cognito.example.com",
        "https://cognito.example.com?secret",
        "https://cognito.example.com/?secret",
        "https://cognito.example.com/#secret",
        "https://cognito.example.com:https",
        "https://cognito.example.com:123456",
        "https://cognito.example.com:65536",
        "https://[::::]",
        "http://[::::]",
        "https://cognito.example.com\\@127.0.0.1",
        "https://cognito.example.com/a b",
        "https://cognito.example.com\n",
        " https://cognito.example.com",
        "https://[::1",
        "http://[::ffff:198.51.100.7]",
    ],
)
def test_endpoint_url_that_is_more_or_less_than_scheme_host_and_path_is_named_and_not_quoted(
    jwks_url: JwksUrl, endpoint: str
) -> None:
    with pytest.raises(RuntimeError, match=f"^environment variable {ENDPOINT} is malformed") as error:
        jwks_url(endpoint)

    assert "secret" not in str(error.value)


# The machine that a container is on


def test_plain_text_may_come_from_the_default_gateway(jwks_url: JwksUrl) -> None:
    assert jwks_url("http://172.17.0.1:4511") == f"http://172.17.0.1:4511{JWKS_PATH}"


@pytest.mark.parametrize(
    ("table", "address"),
    [
        (ROUTES, "172.17.0.2"),
        (ROUTES, "1.0.17.172"),
        (ROUTES, "172.17.0.0"),
        ("".join(ROUTES.splitlines(keepends=True)[:-1]), "172.17.0.1"),
        (ROUTES.splitlines(keepends=True)[0], "172.17.0.1"),
        (None, "172.17.0.1"),
    ],
    ids=["neighbour", "backwards", "network", "no default route", "no route", "no table"],
)
def test_plain_text_may_not_come_from_what_is_no_default_gateway(
    monkeypatch: pytest.MonkeyPatch, jwks_url: JwksUrl, table: str | None, address: str
) -> None:
    with_routes(monkeypatch, table)

    with pytest.raises(RuntimeError, match=f"^environment variable {ENDPOINT} is malformed, http:// is for this "):
        jwks_url(f"http://{address}:4511")
    assert jwks_url("http://127.0.0.1:4511")
