"""How API Gateway's WebSocket APIs behave, as tests that run against any endpoint.

pytest tests/conformance                                   the local gateway, with functions as processes and as images
pytest tests/conformance -k process                        only the first
pytest tests/conformance --outputs outputs.json            AWS, after the deployment that app.py describes
pytest tests/conformance --endpoint wss://… --query idToken=…    any endpoint: what does not depend on its function

Each test's id has the case (an `E` number, `SO` for a case of serverless-offline's suite, else the part of the
behaviour's description) and how sure it is: C confirmed, L likely, U unknown. What is unknown is our choice: the local
gateway has to keep to it, elsewhere the observation becomes the reason of a skip.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest

from local.cloudformation.synthesis import run_app
from tests.conformance.deployments import Deployment, Endpoints, Limited, LocalDeployment
from tests.conformance.gateway import Gateway
from tests.fixtures import ROOT

PROBED = {"main", "bare", "guarded", "open_", "throttled", "unpermitted", "limited"}
TEMPLATED = PROBED - {"main", "limited"}
MARKERS = {
    "case(id, sure, source)": "the behaviour's number, how sure it is (C, L or U), and who says so",
    "probe": "needs the pack's function behind the endpoint",
    "template": "needs an API of app.py other than the main one",
    "patience": "waits for a connection's time to be over",
}

SURE = {"C": "confirmed", "L": "likely", "U": "unknown"}

Test = TypeVar("Test", bound=Callable[..., Any])
Unknown = Callable[[Any, Any], None]


def case(id_: str, sure: Literal["C", "L", "U"], source: str) -> Callable[[Test], Test]:
    """Marks a test with what it shows and who says so; `pytest --collect-only -v` prints it."""

    def marked(test: Test) -> Test:
        test.__doc__ = f"{id_}, {SURE[sure]}: {source}"
        decorated: Test = pytest.mark.case(id_, sure, source)(test)
        return decorated

    return marked


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--endpoint", help="wss://… of a stage, with the routes of the main API or any others")
    group.addoption("--outputs", help="the outputs file of a deployment of tests/conformance/app.py")
    group.addoption("--query", action="append", default=[], metavar="NAME=VALUE", help="that connections need")
    group.addoption("--region", help="of the endpoint (default: as its name says)")
    group.addoption("--profile", help="of AWS credentials (default: the environment's)")
    group.addoption("--slow", action="store_true", help="wait for the limits of ten minutes and two hours")


def pytest_configure(config: pytest.Config) -> None:
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def is_elsewhere(config: pytest.Config) -> bool:
    """Without effect if these options were not known when the command line was read."""
    return bool(config.getoption("endpoint", None) or config.getoption("outputs", None))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "way" in metafunc.fixturenames:
        id_, sure = case_of(metafunc.definition)
        ways = ["endpoint"] if is_elsewhere(metafunc.config) else ["process", "image"]
        ids = [f"{id_}-{sure}-{way}" for way in ways]
        metafunc.parametrize("way", ways, ids=ids, indirect=True, scope="session")


def case_of(item: pytest.Item) -> tuple[str, str]:
    """The case's id, and how sure it is."""
    id_, sure, _ = next(item.iter_markers("case")).args
    return id_, sure


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Elsewhere nothing that is unknown can fail: a surprise, too, is an observation."""
    try:
        yield
    except Exception as surprise:
        if is_elsewhere(item.config) and case_of(item)[1] == "U":
            pytest.skip(f"{item.name}: observed {type(surprise).__name__} {surprise}")
        raise


def pytest_itemcollected(item: pytest.Item) -> None:
    needs = set(getattr(item, "fixturenames", ()))
    for marker, fixtures in {"probe": PROBED, "template": TEMPLATED, "patience": {"limited"}}.items():
        if needs & fixtures:
            item.add_marker(marker)


@pytest.fixture(autouse=True)
def loopback_only(request: pytest.FixtureRequest) -> None:
    """As for every test, but that an endpoint may be anywhere."""
    if not is_elsewhere(request.config):
        request.getfixturevalue("loopback_only")


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the synthesized templates."""
    folder = tmp_path_factory.mktemp("templates")
    run_app(shlex.join([sys.executable, "-m", "tests.conformance.app"]), ROOT, folder)
    return folder


@pytest.fixture(scope="session")
def way(request: pytest.FixtureRequest) -> str:
    """How the functions are run, or `endpoint` if they are elsewhere."""
    if request.param == "image":
        request.getfixturevalue("engine")
    return str(request.param)


@pytest.fixture(scope="session")
def deployment(
    way: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    found: Deployment
    if way == "endpoint":
        found = Endpoints.of(request.config)
    else:
        found = LocalDeployment(way, request.getfixturevalue("templates"), tmp_path_factory.mktemp(way))
    yield found
    found.stop()


@pytest.fixture
async def opened() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def gateway(deployment: Deployment, opened: AsyncExitStack) -> Gateway:
    """Any stage, whatever its function."""
    return Gateway(deployment.any_stage(), opened)


@pytest.fixture
def main(deployment: Deployment, opened: AsyncExitStack) -> Gateway:
    """Routes by `action`, behind an authorizer that wants `token` in the query string."""
    return Gateway(deployment.stage("ConformanceMain"), opened)


@pytest.fixture
def bare(deployment: Deployment, opened: AsyncExitStack) -> Gateway:
    """Neither `$connect` nor `$default`; routes by `service` and `name`."""
    return Gateway(deployment.stage("ConformanceBare"), opened)


@pytest.fixture
def guarded(deployment: Deployment, opened: AsyncExitStack) -> Gateway:
    """Two identity sources, a stage variable; routes by a nested member."""
    return Gateway(deployment.stage("ConformanceGuarded"), opened)


@pytest.fixture
def open_(deployment: Deployment, opened: AsyncExitStack) -> Gateway:
    """An authorizer without identity sources, functions with three seconds; routes by a list."""
    return Gateway(deployment.stage("ConformanceOpen"), opened)


@pytest.fixture
def throttled(deployment: Deployment, opened: AsyncExitStack) -> Gateway:
    """Five requests a second, two at once; every message takes the same route."""
    return Gateway(deployment.stage("ConformanceThrottled"), opened)


@pytest.fixture
def unpermitted(deployment: Deployment, opened: AsyncExitStack) -> Gateway:
    """API Gateway may not invoke the function of `$connect`."""
    return Gateway(deployment.stage("ConformanceUnpermitted"), opened)


@pytest.fixture
def limits(deployment: Deployment) -> Limited:
    return deployment.limited()


@pytest.fixture
def limited(limits: Limited, opened: AsyncExitStack) -> Gateway:
    """The main API, with limits whose end a test can wait for."""
    return Gateway(limits.stage, opened)


@pytest.fixture
def unknown(way: str, request: pytest.FixtureRequest) -> Unknown:
    """Compares what AWS has never been seen to do with our choice, or elsewhere says what is done."""

    def compare(observed: Any, choice: Any) -> None:
        if way == "endpoint":
            pytest.skip(f"{request.node.name}: observed {observed!r}, locally {choice!r}")
        assert observed == choice

    return compare
