"""The server of the built page: what it serves, which requests it refuses, and what the page may connect to."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from local import paths
from local import system as local_system
from local.apigateway.limits import Limits
from local.cloudformation.template import Template
from local.errors import LaunchError
from local.page import PageServer
from local.page_settings import build_local_settings
from local.ports import bind_localhost
from local.progress import Progress
from local.system import Options, check_before_synthesis, run_system
from tests.fixtures.gateway import PATIENCE_SECONDS
from tests.fixtures.network import needs_ipv6
from tests.fixtures.templates import build_resources

OUTPUT = {
    "userPoolId": "us-east-1_AbCdEfGhI",
    "appClientId": "client",
    "webSocketEndpoint": "wss://abc.execute-api.us-east-1.amazonaws.com/prod",
    "credential": "subprotocol",
    "selfSignUp": True,
    "allowedOrigins": [],
    "authorizerLogGroup": "authorizer",
}
SETTINGS = build_local_settings(
    OUTPUT, websocket_url="ws://127.0.0.1:4510/prod", aws_url="http://127.0.0.1:4511", limits=Limits()
)
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws://127.0.0.1:4510 http://127.0.0.1:4511; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
SECRET = "what is beside the page"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder like the one that Vite builds, and secrets beside it."""
    folder = tmp_path / "dist"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>Echo</title>")
    (folder / "favicon.svg").write_text("<svg/>")
    (folder / "assets" / "index-a1b2c3.js").write_text("export {}")
    (folder / "assets" / "index-a1b2c3.css").write_text("a {}")
    (folder / "config.json").write_text('{"of": "a deployment on AWS"}')
    (tmp_path / "secret").write_text(SECRET)
    (folder / "link").symlink_to(tmp_path / "secret")
    return folder


@pytest.fixture
async def page(built: Path) -> AsyncIterator[PageServer]:
    server = PageServer(built, 0)
    await server.start(SETTINGS)
    yield server
    await server.stop()


async def ask(
    page: PageServer, path: str, *, method: str = "GET", host: str | None = None, address: str = "127.0.0.1"
) -> Answer:
    """Send exactly this path and Host header. `{port}` in the header is replaced by the page's port."""

    def answer() -> Answer:
        connection = HTTPConnection(address, page.port, timeout=PATIENCE_SECONDS)
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", (host or "localhost:{port}").format(port=page.port))
        connection.endheaders()
        response = connection.getresponse()
        answer = Answer(response.status, dict(response.getheaders()), response.read().decode())
        connection.close()
        return answer

    return await asyncio.to_thread(answer)


@pytest.mark.parametrize("path", ["/", "/index.html", "/?whatever"])
async def test_page_is_revalidated_each_time(page: PageServer, path: str) -> None:
    answer = await ask(page, path)

    assert (answer.status, answer.body) == (200, "<!doctype html><title>Echo</title>")
    assert (answer.headers["Content-Type"], answer.headers["Cache-Control"]) == ("text/html", "no-cache")


@pytest.mark.parametrize(
    ("path", "types"),
    [
        ("/assets/index-a1b2c3.js", {"text/javascript", "application/javascript"}),
        ("/assets/index-a1b2c3.css", {"text/css"}),
    ],
)
async def test_files_with_a_hash_in_their_names_are_cached(page: PageServer, path: str, types: set[str]) -> None:
    answer = await ask(page, path)

    assert answer.status == 200
    assert answer.headers["Content-Type"] in types
    assert answer.headers["Cache-Control"] == "max-age=31536000, immutable"


async def test_other_files_are_revalidated_each_time(page: PageServer) -> None:
    answer = await ask(page, "/favicon.svg")

    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/svg+xml")
    assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("path", ["/config.json", "/config.json?1"])
async def test_settings_are_those_of_the_local_run_and_never_cached(page: PageServer, path: str) -> None:
    answer = await ask(page, path)

    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
    assert answer.headers["Content-Type"].startswith("application/json")
    assert json.loads(answer.body) == SETTINGS


@pytest.mark.parametrize(
    "path",
    [
        "/assets",
        "/assets/",
        "/assets/nothing.js",
        "/nothing",
        "/../secret",
        "/assets/../../secret",
        "/assets/%2e%2e/config.json",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/..%5csecret",
        "/link",
        "//etc/hostname",
        "/%2fetc%2fhostname",
        "/%00",
        "/index.html%00",
        "/%ff",
        f"/{'a' * 300}",
    ],
)
async def test_nothing_else_is_served(page: PageServer, path: str) -> None:
    answer = await ask(page, path)

    assert answer.status == 404
    assert answer.headers["Cache-Control"] == "no-cache"
    assert SECRET not in answer.body


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (200, {"path": "/"}),
        (200, {"path": "/config.json"}),
        (404, {"path": "/nothing"}),
        (405, {"path": "/", "method": "POST"}),
        (421, {"path": "/", "host": "example.com"}),
    ],
)
async def test_every_answer_has_the_security_headers(page: PageServer, status: int, request_: dict[str, Any]) -> None:
    answer = await ask(page, **request_)

    assert answer.status == status
    assert answer.headers.items() >= HEADERS.items()


@pytest.mark.parametrize("host", ["localhost:{port}", "LOCALHOST:{port}", "127.0.0.1:{port}", "[::1]:{port}"])
async def test_every_name_of_this_machine_is_answered(page: PageServer, host: str) -> None:
    assert (await ask(page, "/config.json", host=host)).status == 200


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("example.com:{port}", "/"),
        ("example.com", "/config.json"),
        ("localhost", "/nothing"),
        ("localhost:1", "/"),
        ("127.0.0.1.example.com:{port}", "/"),
        ("0.0.0.0:{port}", "/"),
    ],
)
async def test_other_host_name_that_resolves_to_this_machine_is_refused(page: PageServer, host: str, path: str) -> None:
    answer = await ask(page, path, host=host)

    assert (answer.status, answer.body) == (421, f"The page is at http://localhost:{page.port}.\n")


@pytest.mark.parametrize("address", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
async def test_page_is_at_every_address_of_localhost(page: PageServer, address: str) -> None:
    assert (await ask(page, "/", address=address)).status == 200


async def test_page_is_at_no_other_address(page: PageServer) -> None:
    addresses = {listener.getsockname()[0] for listener in page._listeners}

    assert addresses <= {"127.0.0.1", "::1"}


async def test_stop_frees_the_port_of_the_page(built: Path) -> None:
    page = PageServer(built, 0)
    await page.start(SETTINGS)
    assert (await ask(page, "/")).status == 200

    await page.stop()

    for listener in bind_localhost(page.port, "--page-port"):
        listener.close()


async def test_stop_frees_the_port_if_the_page_was_never_started(built: Path) -> None:
    page = PageServer(built, 0)

    await page.stop()

    for listener in bind_localhost(page.port, "--page-port"):
        listener.close()


# The settings


def test_local_settings_have_the_local_gateway_and_the_local_user_pool() -> None:
    kept = OUTPUT.keys() - {"webSocketEndpoint", "authorizerLogGroup"}

    assert {name: value for name, value in SETTINGS.items() if name not in kept} == {
        "webSocketEndpoint": "ws://127.0.0.1:4510/prod",
        "userPoolEndpoint": "http://127.0.0.1:4511/",
        "idleLimitSeconds": 600,
        "connectionLimitSeconds": 7200,
    }
    assert {name: SETTINGS[name] for name in kept} == {name: OUTPUT[name] for name in kept}


def test_local_settings_have_the_limits_of_a_compressed_clock() -> None:
    limits = Limits(idle_seconds=30).speed_up(600)

    settings = build_local_settings(
        OUTPUT, websocket_url="ws://127.0.0.1:1/prod", aws_url="http://127.0.0.1:2", limits=limits
    )

    assert (settings["idleLimitSeconds"], settings["connectionLimitSeconds"]) == (0.05, 12)


# In the system


def write_template(folder: Path, **outputs: Any) -> Path:
    path = folder / "Chat.template.json"
    path.write_text(json.dumps({"Resources": build_resources(), "Outputs": outputs}))
    return path


async def get_error(options: Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Return the error for a page that cannot be served. It must come before the synthesis."""
    monkeypatch.setattr(paths, "STATE", tmp_path)
    monkeypatch.setattr(paths, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(local_system, "read_or_synthesize_template", None)
    with pytest.raises(LaunchError) as error:
        async with run_system(options, Progress(io.StringIO())):
            pass
    return str(error.value)


async def test_missing_page_is_refused_before_the_synthesis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = await get_error(Options(page_port=0, page=tmp_path / "dist"), monkeypatch, tmp_path)

    assert told == "the page is not built: run `make page`"


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("flag", ["--page-port", "--inspector-port", "--port"])
async def test_taken_port_is_refused_before_the_synthesis(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, built: Path, taken_port: int, flag: str
) -> None:
    ports: dict[str, Any] = {flag.strip("-").replace("-", "_"): taken_port}

    told = await get_error(Options(page=built, **ports), monkeypatch, tmp_path)

    assert told == f"port {taken_port} is taken by another program: choose another with {flag}"


def test_template_without_settings_for_a_page_needs_no_page_and_no_port(tmp_path: Path, taken_port: int) -> None:
    options = Options(page_port=taken_port, page=tmp_path / "dist")

    check_before_synthesis(options, Template.read(write_template(tmp_path)))


def test_template_with_settings_for_a_page_needs_both(tmp_path: Path, built: Path, taken_port: int) -> None:
    given = Template.read(write_template(tmp_path, PageConfig={"Value": "{}"}))

    with pytest.raises(LaunchError, match="not built"):
        check_before_synthesis(Options(page_port=0, page=tmp_path / "elsewhere"), given)
    with pytest.raises(LaunchError, match="is taken"):
        check_before_synthesis(Options(page_port=taken_port, page=built), given)
    check_before_synthesis(Options(page_port=0, page=built), given)


def test_page_is_not_needed_without_a_page_port(tmp_path: Path) -> None:
    check_before_synthesis(Options(page=tmp_path / "dist"), None)
