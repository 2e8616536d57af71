"""Test against any endpoint that WebSocket APIs behave as docs/api-gateway.md says.

pytest tests/conformance                                   the local gateway, as `make up` starts it
pytest tests/conformance -k process                        the same without images, which need a Docker engine
pytest tests/conformance --outputs outputs.json            AWS, after the deployment that app.py describes
pytest tests/conformance --endpoint wss://… --query idToken=…    any endpoint: the cases that do not need our function

Each test's id has the id of its row in docs/api-gateway.md and the row's mark. The local gateway must behave as all rows
say. Elsewhere a difference from an assumed row is no failure: the test is skipped, and its reason is the observation.

All cases run with functions in processes, because the gateway's behaviour does not depend on how a function is launched.
The cases in ALSO_WITH_IMAGES run with images too: one or two for each behaviour that the launch could change.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest

from local.cloudformation.synthesis import run_app
from tests.conformance.contract import Row, find_row
from tests.conformance.deployments import Deployment, Endpoints, Limited, LocalDeployment
from tests.conformance.gateway import Gateway
from tests.fixtures import ROOT

PROBED = {"main", "bare", "guarded", "open_", "throttled", "unpermitted", "limited"}
TEMPLATED = PROBED - {"main", "limited"}
ALSO_WITH_IMAGES = {
    "authorizer-unauthorized-401",
    "connect-error-502",
    "connect-post-410",
    "connections-denied-403",
    "context-in-events",
    "error-function-failed",
    "error-timeout",
    "event-message-members",
    "order-messages",
    "post-many-clients",
}
MARKERS = {
    "case(row)": "the row of docs/api-gateway.md that the test checks",
    "probe": "needs the pack's function behind the endpoint",
    "template": "needs an API of app.py other than the main one",
    "patience": "waits until a limit ends a connection",
}

Test = TypeVar("Test", bound=Callable[..., Any])


def case(id_: str) -> Callable[[Test], Test]:
    """Mark a test with its row of docs/api-gateway.md; `pytest --collect-only -v` prints the row.

    Raises:
        ContractError: the page has no such row.
    """
    row = find_row(id_)

    def mark(test: Test) -> Test:
        test.__doc__ = f"{row.id}, {row.mark}: {row.behaviour}. Source: {row.source}"
        marked: Test = pytest.mark.case(row)(test)
        return marked

    return mark


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--endpoint", help="wss://… of a stage, with the routes of the main API or any others")
    group.addoption("--outputs", help="the outputs file of a deployment of tests/conformance/app.py")
    group.addoption(
        "--query", action="append", default=[], metavar="NAME=VALUE", help="query parameter that connections need"
    )
    group.addoption("--region", help="region of the endpoint (default: the one in its name)")
    group.addoption("--profile", help="profile of the AWS credentials (default: those of the environment)")
    group.addoption("--slow", action="store_true", help="wait for the limits of ten minutes and two hours")


def pytest_configure(config: pytest.Config) -> None:
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def is_elsewhere(config: pytest.Config) -> bool:
    """Return whether the cases run against an endpoint. Its options are unknown if pytest starts in another folder."""
    return bool(config.getoption("endpoint", None) or config.getoption("outputs", None))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" in metafunc.fixturenames:
        row = get_row(metafunc.definition)
        targets = ["process", "image"] if row.id in ALSO_WITH_IMAGES else ["process"]
        if is_elsewhere(metafunc.config):
            targets = ["endpoint"]
        ids = [f"{row.id}-{row.mark}-{target}" for target in targets]
        metafunc.parametrize("target", targets, ids=ids, indirect=True, scope="session")


def get_row(item: pytest.Item) -> Row:
    marker = item.get_closest_marker("case")
    assert marker, f"{item.name} runs against a gateway, so it must cite its row by @case"
    row: Row = marker.args[0]
    return row


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Turn a difference from an assumed row into a skip, except for the local gateway."""
    try:
        yield
    except (Exception, pytest.fail.Exception) as difference:
        marker = item.get_closest_marker("case")
        if marker and marker.args[0].mark == "assumed" and is_elsewhere(item.config):
            observation = str(difference).partition("\n")[0]
            pytest.skip(f"{item.name}: {type(difference).__name__}: {observation}")
        raise


def pytest_itemcollected(item: pytest.Item) -> None:
    needs = set(getattr(item, "fixturenames", ()))
    for marker, fixtures in {"probe": PROBED, "template": TEMPLATED, "patience": {"limited"}}.items():
        if needs & fixtures:
            item.add_marker(marker)


@pytest.fixture(autouse=True)
def loopback_only(request: pytest.FixtureRequest) -> None:
    """Block network access as in all tests, except for cases that run against an endpoint."""
    if not is_elsewhere(request.config):
        request.getfixturevalue("loopback_only")


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthesize the templates; return their folder."""
    folder = tmp_path_factory.mktemp("templates")
    run_app(shlex.join([sys.executable, "-m", "tests.conformance.app"]), ROOT, folder)
    return folder


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> str:
    """Return the kind of gateway: the local one with functions in a `process` or an `image`, or an `endpoint`."""
    if request.param == "image":
        request.getfixturevalue("engine")
    return str(request.param)


@pytest.fixture(scope="session")
def deployment(
    target: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    found: Deployment
    if target == "endpoint":
        found = Endpoints.read(request.config)
    else:
        found = LocalDeployment(target, request.getfixturevalue("templates"), tmp_path_factory.mktemp(target))
    yield found
    found.stop()


@pytest.fixture
async def opened() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def gateway(deployment: Deployment, opened: AsyncExitStack) -> Gateway:
    """Return any stage, with any function."""
    return Gateway(deployment.get_any_stage(), opened)


@pytest.fixture
def main(deployment: Deployment, opened: AsyncExitStack) -> Gateway:
    """Return the main API: it routes by `action`, and its authorizer needs `token` in the query string."""
    return Gateway(deployment.get_stage("ConformanceMain"), opened)


@pytest.fixture
def bare(deployment: Deployment, opened: AsyncExitStack) -> Gateway:
    """Return an API without `$connect` and `$default`; it routes by `service` and `name`."""
    return Gateway(deployment.get_stage("ConformanceBare"), opened)


@pytest.fixture
def guarded(deployment: Deployment, opened: AsyncExitStack) -> Gateway:
    """Return an API with two identity sources and a stage variable; it routes by a nested member."""
    return Gateway(deployment.get_stage("ConformanceGuarded"), opened)


@pytest.fixture
def open_(deployment: Deployment, opened: AsyncExitStack) -> Gateway:
    """Return an API whose authorizer has no identity sources and whose function times out after 3 s; it routes by a list."""
    return Gateway(deployment.get_stage("ConformanceOpen"), opened)


@pytest.fixture
def throttled(deployment: Deployment, opened: AsyncExitStack) -> Gateway:
    """Return a stage with a throttle of five requests a second and a burst of two; all messages take one route."""
    return Gateway(deployment.get_stage("ConformanceThrottled"), opened)


@pytest.fixture
def unpermitted(deployment: Deployment, opened: AsyncExitStack) -> Gateway:
    """Return an API that may not invoke the function of `$connect`."""
    return Gateway(deployment.get_stage("ConformanceUnpermitted"), opened)


@pytest.fixture
def limits(deployment: Deployment) -> Limited:
    return deployment.get_limited()


@pytest.fixture
def limited(limits: Limited, opened: AsyncExitStack) -> Gateway:
    """Return the main API with time limits that a test can wait for."""
    return Gateway(limits.stage, opened)
