"""Gateways, tables and users for the tests of `ops`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.ops import create_table
from local.aws.ministack import LocalAws
from tests.fixtures.apis import OUR_ROUTES, api
from tests.fixtures.gateway import Serve
from tests.fixtures.ops import TABLE, Desk, MakeDesk


@pytest.fixture(scope="session")
def table(database: LocalAws) -> None:
    create_table(database.client("dynamodb"), TABLE)


@pytest.fixture
def make_desk(serve: Serve, database: LocalAws, table: None) -> Iterator[MakeDesk]:
    """Start a gateway with these options."""
    desks: list[Desk] = []

    async def make(**options: Any) -> Desk:
        desks.append(Desk(await serve(api(*OUR_ROUTES), **options), database))
        return desks[-1]

    yield make
    for deployment in (each for desk in desks for each in desk.opened):
        deployment.close()


@pytest.fixture
async def desk(make_desk: MakeDesk) -> Desk:
    made: Desk = await make_desk()
    return made
