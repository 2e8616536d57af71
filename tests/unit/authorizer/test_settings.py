"""What the authorizer reads from its environment: it takes valid values, and stops with a message that names the variable."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import botocore.session
import pytest
from botocore.endpoint_provider import EndpointProvider

from benchmarks.user_pool import APP_CLIENT_ID, ISSUER, USER_POOL_ID
from tests.fixtures.functions import AUTHORIZER, Authorize, ColdStart, Refusal, get_effect
from tests.fixtures.network import LoopbackServer
from tests.fixtures.tokens import JWKS_ENDPOINT, JWKS_PATH, Sign

Read = Callable[..., Any]


@pytest.fixture
def read(imported_authorizer: ModuleType) -> Read:
    """Return the settings of the required variables and these."""
    return lambda **environ: imported_authorizer.Settings.read(AUTHORIZER | environ)


def test_settings_have_defaults(read: Read) -> None:
    assert read()._asdict() == {
        "issuers": [ISSUER, ISSUER.replace("cognito-idp", "issuer-cognito-idp")],
        "app_client_id": APP_CLIENT_ID,
        "jwks_url": f"{ISSUER}/.well-known/jwks.json",
        "credential_mode": "querystring",
        "allowed_origins": [],
        "allow_missing_origin": False,
        "required_group": "",
        "clock_skew_seconds": 5,
    }


@pytest.mark.parametrize(
    "name",
    [
        "CREDENTIAL_MODE",
        "ALLOWED_ORIGINS",
        "ALLOW_MISSING_ORIGIN",
        "REQUIRED_GROUP",
        "CLOCK_SKEW_SECONDS",
        JWKS_ENDPOINT,
    ],
)
def test_empty_variable_means_the_default(read: Read, name: str) -> None:
    assert read(**{name: ""}) == read()


# Malformed values


@pytest.mark.parametrize("name", ["USER_POOL_ID", "APP_CLIENT_ID"])
@pytest.mark.parametrize("environ", [{}, {"USER_POOL_ID": "", "APP_CLIENT_ID": ""}], ids=["unset", "empty"])
def test_missing_variable_stops_the_init_phase_and_is_named(
    cold_start: ColdStart, name: str, environ: dict[str, str]
) -> None:
    others = {other: value for other, value in AUTHORIZER.items() if other != name}

    with pytest.raises(RuntimeError, match=f"^environment variable {name} is required$"):
        cold_start("authorizer", **environ | others)


RULES = {
    "USER_POOL_ID": "an id such as us-east-1_Example01",
    "APP_CLIENT_ID": "an app client's id",
    "CREDENTIAL_MODE": "querystring or subprotocol",
    "ALLOWED_ORIGINS": "origins such as https://example.com",
    "ALLOW_MISSING_ORIGIN": "true or false",
    "REQUIRED_GROUP": "a group's name",
    "CLOCK_SKEW_SECONDS": "a number from 0 to 5",
    JWKS_ENDPOINT: "an https:// URL, or an http:// URL of this machine",
}


def build_message(name: str) -> str:
    """Return the whole message, which quotes nothing of the value."""
    return f"environment variable {name} is malformed, it must be {RULES[name]}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("USER_POOL_ID", "Example01"),
        ("USER_POOL_ID", "us-east-1_"),
        ("USER_POOL_ID", "us-east-1_Example01\n"),
        ("USER_POOL_ID", "example.com/us-east-1_Example01"),
        ("APP_CLIENT_ID", "https://example.com/"),
        ("APP_CLIENT_ID", "a" * 129),
        ("CREDENTIAL_MODE", "querystring,subprotocol"),
        ("ALLOWED_ORIGINS", "*"),
        ("ALLOWED_ORIGINS", "null"),
        ("ALLOWED_ORIGINS", "app.example.com"),
        ("ALLOWED_ORIGINS", "https://*.example.com"),
        ("ALLOWED_ORIGINS", "https://app.example.com/"),
        ("ALLOWED_ORIGINS", "https://APP.example.com"),
        ("ALLOWED_ORIGINS", "https://ada@app.example.com"),
        ("ALLOWED_ORIGINS", "https://app.example.com,example.com"),
        ("ALLOW_MISSING_ORIGIN", "True"),
        ("REQUIRED_GROUP", "two words"),
        ("REQUIRED_GROUP", "a" * 129),
        ("CLOCK_SKEW_SECONDS", "6"),
        ("CLOCK_SKEW_SECONDS", "-1"),
    ],
)
def test_malformed_variable_is_named_with_the_rule(read: Read, name: str, value: str) -> None:
    with pytest.raises(RuntimeError) as error:
        read(**{name: value})

    assert str(error.value) == build_message(name)


def test_malformed_variable_stops_the_init_phase(cold_start: ColdStart) -> None:
    with pytest.raises(RuntimeError, match=f"^{build_message('CREDENTIAL_MODE')}$"):
        cold_start("authorizer", **AUTHORIZER, CREDENTIAL_MODE="header")


# Regions


def cognito_endpoints() -> dict[str, str]:
    """Return botocore's default endpoint of user pools for each region that has them."""
    session = botocore.session.get_session()
    loader = session.get_component("data_loader")
    rules = loader.load_service_model("cognito-idp", "endpoint-rule-set-1")
    provider = EndpointProvider(rules, loader.load_data("partitions"))
    partitions = session.get_available_partitions()
    regions = [region for each in partitions for region in session.get_available_regions("cognito-idp", each)]
    return {
        region: provider.resolve_endpoint(Region=region, UseFIPS=False, UseDualStack=False).url for region in regions
    }


def test_issuer_and_keys_are_where_botocore_finds_the_user_pools_of_each_region(read: Read) -> None:
    endpoints = cognito_endpoints()

    settings = {region: read(USER_POOL_ID=f"{region}_Example01") for region in endpoints}

    assert {"us-east-1", "ap-southeast-5", "us-gov-west-1", "eusc-de-east-1"} <= endpoints.keys()
    for region, endpoint in endpoints.items():
        issuer = f"{endpoint}/{region}_Example01"
        assert settings[region].issuers == [issuer, issuer.replace("https://", "https://issuer-")]
        assert settings[region].jwks_url == f"{issuer}/.well-known/jwks.json"


# Where the keys are downloaded


def test_keys_come_from_the_region_of_the_user_pool(cold_start: ColdStart) -> None:
    authorizer = cold_start("authorizer", USER_POOL_ID="eu-west-3_Example01", APP_CLIENT_ID=APP_CLIENT_ID)

    with pytest.raises(
        authorizer.KeySetUnavailable,
        match=r"^https://cognito-idp\.eu-west-3\.amazonaws\.com/eu-west-3_Example01/\.well-known/jwks\.json: gaierror$",
    ):
        authorizer.handler.jwks.find("any")


def test_an_endpoint_url_moves_the_download_but_not_the_issuers(
    authorize: Authorize, refusal: Refusal, sign: Sign, jwks: LoopbackServer
) -> None:
    assert get_effect(authorize(sign(iss=ISSUER))) == "Allow"
    assert [(request.method, request.path) for request in jwks.requests] == [("GET", JWKS_PATH)]
    assert refusal(sign(iss=f"{jwks.url}/{USER_POOL_ID}")) == "invalid_claim.iss"


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://cognito.example.com",
        "https://198.51.100.7:8443/eu",
        "http://127.255.255.254",
        "http://localhost:4511",
        "http://[::1]:4511",
        "http://host.docker.internal:4511",
        "http://host.containers.internal:4511/a/b",
    ],
)
def test_keys_are_downloaded_by_https_or_from_this_machine(read: Read, endpoint: str) -> None:
    assert read(**{JWKS_ENDPOINT: endpoint}).jwks_url == f"{endpoint}{JWKS_PATH}"
    assert read(**{JWKS_ENDPOINT: f"{endpoint}/"}).jwks_url == f"{endpoint}{JWKS_PATH}"


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://cognito.example.com",
        "http://198.51.100.7:4511",
        "http://128.0.0.1",
        "http://[::2]",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://mylocalhost",
    ],
)
def test_plain_text_from_another_machine_is_refused(read: Read, endpoint: str) -> None:
    with pytest.raises(RuntimeError) as error:
        read(**{JWKS_ENDPOINT: endpoint})

    assert str(error.value) == build_message(JWKS_ENDPOINT)


@pytest.mark.parametrize(
    "endpoint",
    [
        "ftp://127.0.0.1",
        "https://",
        "HTTPS://127.0.0.1",
        "https://ada:secret@cognito.example.com",
        "http://127.0.0.1@cognito.example.com",
        "https://cognito.example.com?secret",
        "https://cognito.example.com/#secret",
        "https://cognito.example.com:123456",
        "https://cognito.example.com/a b",
        "https://cognito.example.com\n",
    ],
)
def test_endpoint_url_of_another_form_is_refused(read: Read, endpoint: str) -> None:
    with pytest.raises(RuntimeError) as error:
        read(**{JWKS_ENDPOINT: endpoint})

    assert str(error.value) == build_message(JWKS_ENDPOINT)
