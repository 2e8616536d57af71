"""Start gateways with a table and a user for the tests of `ops`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.ops import create_table
from local.aws.ministack import LocalAws
from tests.fixtures.apis import OUR_ROUTES, api
from tests.fixtures.gateway import Serve
from tests.fixtures.ops import TABLE, LocalDeployment, StartLocalDeployment


@pytest.fixture(scope="session")
def table(database: LocalAws) -> None:
    create_table(database.client("dynamodb"), TABLE)


@pytest.fixture
def start_local_deployment(serve: Serve, database: LocalAws, table: None) -> Iterator[StartLocalDeployment]:
    """Return a function that starts a gateway with some options, and return it with the table and a user."""
    started: list[LocalDeployment] = []

    async def start(**options: Any) -> LocalDeployment:
        started.append(LocalDeployment(await serve(api(*OUR_ROUTES), **options), database))
        return started[-1]

    yield start
    for deployment in (each for local_deployment in started for each in local_deployment.opened):
        deployment.close()


@pytest.fixture
async def local_deployment(start_local_deployment: StartLocalDeployment) -> LocalDeployment:
    deployment: LocalDeployment = await start_local_deployment()
    return deployment
