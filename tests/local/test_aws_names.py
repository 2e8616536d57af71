"""Addresses of AWS that a function's code builds itself lead to the local system, and no call reaches AWS."""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.aws.endpoint import AwsEndpoint
from local.aws.iam import Iam, Role, Session, Statement
from tests.fixtures.gateway import Gateway, Serve, receive
from tests.fixtures.network import Answer, LoopbackServer
from tests.fixtures.runtime import MakeRuntime, Runtime

JWKS = "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_Example01/.well-known/jwks.json"
API = "localapi00.execute-api.us-east-1.amazonaws.com"
EVERYTHING = Statement("Allow", ("*",), ("*",))
PACKAGES = Path(httpx.__file__).parents[1]

# A function that does what the event says with the client that it names.
FUNCTION = """
import asyncio, json, socket, ssl, sys

def handler(event, context):
    try:
        return globals()[event.pop("do")](**event)
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}

def by_boto3(service, operation, parameters={}, **options):
    import boto3
    client = boto3.client(service, **options)
    answer = getattr(client, operation)(**parameters)
    return answer["ResponseMetadata"]["HTTPStatusCode"]

def by_urllib_request(url):
    from urllib.request import urlopen
    return json.load(urlopen(url))

def by_http_client(url):
    from http.client import HTTPSConnection
    host, path = url.removeprefix("https://").split("/", 1)
    connection = HTTPSConnection(host)
    connection.request("GET", f"/{path}")
    return json.load(connection.getresponse())

def by_urllib3(url, as_text=False):
    import urllib3
    answer = urllib3.PoolManager().request("GET", url)
    return answer.data.decode() if as_text else answer.json()

def by_requests(url):
    import requests
    return requests.get(url).json()

def by_httpx(url):
    import httpx
    return httpx.get(url).json()

def by_aiohttp(url):
    import aiohttp
    async def get():
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return await answer.json(content_type=None)
    return asyncio.run(get())

def by_websockets(url):
    from websockets.sync.client import connect
    with connect(url) as peer:
        peer.send("hello")
        return peer.recv()

def by_asyncio_websockets(url):
    from websockets.asyncio.client import connect
    async def echo():
        async with connect(url) as peer:
            await peer.send("hello")
            return await peer.recv()
    return asyncio.run(echo())

def by_a_socket_with_a_name(host):
    with ssl.create_default_context().wrap_socket(socket.socket(), server_hostname=host) as tls:
        tls.connect((host, 443))
        return tls.version()

def connect(host, port):
    socket.create_connection((host, port))

def look_up(host):
    return [socket.gethostbyname(host), socket.gethostbyname_ex(host)[2], socket.getaddrinfo(host, 443)[0][4]]
"""


class Caller:
    """A function whose calls reach an endpoint and a gateway."""

    def __init__(self, endpoint: AwsEndpoint, gateway: Gateway, cognito: LoopbackServer, function: Runtime) -> None:
        self.endpoint = endpoint
        self.gateway = gateway
        self.cognito = cognito
        self.function = function

    async def run(self, task: str, **parameters: Any) -> Any:
        invocation = await self.function.invoke({"do": task, **parameters})
        assert invocation.error is None, invocation.message
        return invocation.answer


@pytest.fixture
def cognito() -> Iterator[LoopbackServer]:
    with LoopbackServer(Answer(headers={"Content-Type": "application/json"}, body=[b'{"keys": []}'])) as server:
        yield server


@pytest.fixture
async def endpoint(cognito: LoopbackServer) -> AsyncIterator[AwsEndpoint]:
    endpoint = AwsEndpoint(Iam(), {"cognito-idp": cognito.url, "dynamodb": cognito.url})
    await endpoint.start()
    yield endpoint
    await endpoint.stop()


@pytest.fixture
def session(endpoint: AwsEndpoint) -> Session:
    return endpoint.iam.open_session("websocket", Role("Role", (EVERYTHING,)), "arn:aws:sts::0:assumed-role/Role/F")


@pytest.fixture
async def caller(
    serve: Serve, cognito: LoopbackServer, endpoint: AwsEndpoint, session: Session, make_runtime: MakeRuntime
) -> Caller:
    gateway = await serve(iam=endpoint.iam)
    endpoint.route_gateway(API, gateway.port)
    own = {"PYTHONPATH": str(PACKAGES), "https_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    function = make_runtime(
        FUNCTION, environment={**own, **endpoint.build_environment(own), **session.build_environment()}, concurrency=1
    )
    return Caller(endpoint, gateway, cognito, function)


# What is run locally


async def test_every_client_gets_the_keys_from_the_local_cognito(caller: Caller) -> None:
    clients = ["urllib_request", "http_client", "urllib3", "requests", "httpx", "aiohttp"]

    got = {client: await caller.run(f"by_{client}", url=JWKS) for client in clients}

    assert got == {client: {"keys": []} for client in clients}
    assert [request.path for request in caller.cognito.requests] == [JWKS.partition(".com")[2]] * len(clients)


async def test_boto3_posts_to_the_stage_by_the_name_in_its_event(caller: Caller) -> None:
    peer, connection_id = await caller.gateway.connect_with_id()

    status = await caller.run(
        "by_boto3",
        service="apigatewaymanagementapi",
        endpoint_url=f"https://{API}/prod",
        operation="post_to_connection",
        parameters={"ConnectionId": connection_id, "Data": "hello"},
    )

    assert status == 200
    assert await receive(peer) == "hello"


@pytest.mark.parametrize("client", ["websockets", "asyncio_websockets"])
async def test_function_is_a_client_of_its_own_api(caller: Caller, client: str) -> None:
    asked = asyncio.create_task(caller.run(f"by_{client}", url=f"wss://{API}/prod"))
    connected = await caller.gateway.functions.wait_for_event("$connect")
    message = await caller.gateway.functions.wait_for_event("$default")
    peer = caller.gateway.server.connections.get(connected["requestContext"]["connectionId"])
    assert peer

    peer.send(message["body"].encode())

    assert await asked == "hello"
    assert connected["headers"]["Host"] == API


async def test_other_services_of_the_run_are_called_by_their_addresses(caller: Caller) -> None:
    url = "https://dynamodb.us-east-1.amazonaws.com"

    assert await caller.run("by_boto3", service="dynamodb", endpoint_url=url, operation="list_tables") == 200
    assert await caller.run("by_boto3", service="dynamodb", operation="list_tables") == 200


async def test_name_is_local_however_it_is_resolved(caller: Caller) -> None:
    port = caller.endpoint._names.port

    assert await caller.run("look_up", host="Cognito-IDP.us-east-1.amazonaws.com.") == [
        "127.0.0.1",
        ["127.0.0.1"],
        ["127.0.0.1", port],
    ]
    assert await caller.run("by_a_socket_with_a_name", host=API) == "TLSv1.3"


# What is not run locally


SERVICES = [
    ("s3", "list_buckets", {}),
    ("s3", "put_object", {"Bucket": "rooms", "Key": "1", "Body": "<xml/>"}),
    ("cloudfront", "list_distributions", {}),
    ("sqs", "list_queues", {}),
    ("sns", "list_topics", {}),
    ("ec2", "describe_instances", {}),
    ("lambda", "list_functions", {}),
    ("secretsmanager", "list_secrets", {}),
    ("sts", "get_caller_identity", {}),
]


async def test_other_service_says_that_it_is_not_run_locally(caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    for service, operation, parameters in SERVICES * 2:
        got = await caller.run("by_boto3", service=service, operation=operation, parameters=parameters)

        assert got["error"] == "ClientError"
        assert "(NotImplemented)" in got["message"]
        assert f": {service} is not run locally, only cognito-idp, dynamodb, execute-api." in got["message"]

    advice = [record.getMessage() for record in caplog.records if record.name == "local.aws.endpoint"]
    assert [each.split(" is not")[0] for each in advice] == [
        f"websocket: {service}" for service in dict.fromkeys(service for service, *_ in SERVICES)
    ]


async def test_other_address_says_that_it_is_not_run_locally(caller: Caller) -> None:
    addresses = {
        "rooms.s3.amazonaws.com": "<Message>s3 is not run locally, only cognito-idp, dynamodb, execute-api.",
        "rooms.auth.us-east-1.amazoncognito.com": "auth is not run locally",
        "dynamodb.eu-west-1.amazonaws.com": "dynamodb in eu-west-1 is not run locally: the template's region is us-",
        f"other{API}": f"other{API} is not run locally: the template's API is {API}",
    }

    got = {host: await caller.run("by_urllib3", url=f"https://{host}/", as_text=True) for host in addresses}

    assert [host for host, message in addresses.items() if message not in got[host]] == []
    assert caller.cognito.requests == []


async def test_only_https_is_spoken_for_aws(caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    host = "rooms.abc.us-east-1.rds.amazonaws.com"

    got = [await caller.run("connect", host=host, port=5432) for _ in range(2)]

    message = f"{host}:5432 is not run locally: AWS is reached by HTTPS only"
    assert got == [{"error": "gaierror", "message": f"[Errno -4] {message}"}] * 2
    assert [record.getMessage() for record in caplog.records].count(message) == 1


# A function's own settings


async def test_hidden_sitecustomize_is_imported_too(endpoint: AwsEndpoint, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('hidden', __name__)")
    environment = endpoint.build_environment({"PYTHONPATH": str(tmp_path)})

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import sys; print('socket' in sys.modules)", env=environment, stdout=-1, stderr=-1
    )

    assert await process.communicate() == (b"hidden sitecustomize\nFalse\n", b"")


async def test_function_keeps_its_own_certificates_and_proxies(endpoint: AwsEndpoint) -> None:
    own = {"AWS_CA_BUNDLE": "/var/task/roots.pem", "no_proxy": "example.org"}

    environment = endpoint.build_environment(own)

    assert "AWS_CA_BUNDLE" not in environment
    assert {"127.0.0.1", "amazonaws.com", "example.org"} <= {*environment["no_proxy"].split(",")}


async def test_the_usual_certificates_are_still_trusted(endpoint: AwsEndpoint) -> None:
    usual = subjects(ssl.create_default_context())

    trusted = subjects(ssl.create_default_context(cafile=endpoint.build_environment()["SSL_CERT_FILE"]))

    assert usual < trusted
    (ours,) = trusted - usual
    assert "local run" in ours


def subjects(context: ssl.SSLContext) -> set[str]:
    return {str(each["subject"]) for each in context.get_ca_certs()}


async def test_tls_listens_on_loopback_for_names_of_aws_only(endpoint: AwsEndpoint) -> None:
    context = ssl.create_default_context(cafile=endpoint.build_environment()["SSL_CERT_FILE"])

    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", endpoint._names.port, ssl=context, server_hostname="example.org")

    assert [each.getsockname()[0] for each in endpoint._names._server.sockets] == ["127.0.0.1"]
