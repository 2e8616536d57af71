"""Run the functions in Lambda's runtime behind the real emulator, in the built images or as processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.aws.iam import ADMINISTRATOR
from local.aws.ministack import LocalAws
from tests.fixtures.emulator import WEBSOCKET, Emulate, Emulator, FakeAws
from tests.fixtures.functions import AUTHORIZER
from tests.fixtures.network import LoopbackServer
from tests.fixtures.tokens import JWKS_ENDPOINT


@pytest.fixture(scope="session")
def aws() -> Iterator[FakeAws]:
    with FakeAws() as server:
        yield server


@pytest.fixture(scope="session")
def authorizer(emulate: Emulate, jwks_server: LoopbackServer) -> Iterator[Emulator]:
    with emulate("authorizer", {**AUTHORIZER, JWKS_ENDPOINT: jwks_server.url}) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def strict_authorizer(emulate: Emulate, jwks_server: LoopbackServer) -> Iterator[Emulator]:
    """Run an authorizer with every check that a deployment can require."""
    options = {
        "AWS_LAMBDA_LOG_LEVEL": "DEBUG",
        "CREDENTIAL_MODE": "subprotocol",
        "ALLOWED_ORIGINS": "https://app.example.com http://localhost:5173",
        "REQUIRED_GROUP": "members",
        "CLOCK_SKEW_SECONDS": "0",
        JWKS_ENDPOINT: jwks_server.url,
    }
    with emulate("authorizer", AUTHORIZER | options) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def websocket(emulate: Emulate, aws: FakeAws) -> Iterator[Emulator]:
    endpoints = {
        "AWS_ENDPOINT_URL_DYNAMODB": aws.url,
        "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": f"{aws.url}/prod",
    }
    with emulate("websocket", WEBSOCKET | endpoints) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def limited_websocket(emulate: Emulate, database: LocalAws) -> Iterator[Emulator]:
    """Run a websocket function with two slots for each user in a real DynamoDB."""
    limits = {
        "MAX_CONNECTIONS_PER_USER": "2",
        "USER_TABLE_NAME": "users",
        "AWS_ENDPOINT_URL_DYNAMODB": database.url,
        "AWS_ACCESS_KEY_ID": ADMINISTRATOR,
        "AWS_SECRET_ACCESS_KEY": ADMINISTRATOR,
    }
    with emulate("websocket", WEBSOCKET | limits) as emulator:
        yield emulator
