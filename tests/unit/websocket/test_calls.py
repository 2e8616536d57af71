"""The AWS calls of the websocket function: how long they can take, services that do not answer, reused connections."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config
from botocore.exceptions import ClientError, NoCredentialsError
from botocore.retries.standard import ExponentialBackoff, RetryContext, RetryEventAdapter, ThrottlingErrorDetector

from benchmarks.user_pool import SUB
from tests.fixtures.events import CONNECTION_ID, Event, load_event
from tests.fixtures.functions import WEBSOCKET, ColdStart
from tests.fixtures.network import Answer, LoopbackServer, find_free_port
from tests.fixtures.stack import EVERY_OPTION, find_functions, synthesize_template

Output = dict[str, Any]

LIMITED = {"MAX_CONNECTIONS_PER_USER": "3", "USER_TABLE_NAME": "users"}
LONG_AGO, FAR_AWAY = "0", "4102444800"
ROUTES = {
    "connect": load_event("connect"),
    "disconnect": load_event("disconnect"),
    "message": load_event("default"),
    "message after the token's expiry": load_event("default", authorizer={"userId": SUB, "exp": LONG_AGO}),
}


# How long a route can take


def error(code: str, **output: object) -> Output:
    return {"Error": {"Code": code}, **output}


def user_row(end: str) -> Output:
    return {"Item": {"slots": {"SS": [f"{end} {CONNECTION_ID}"]}}}


ROW = {"connectionId": {"S": CONNECTION_ID}, "userId": {"S": SUB}, "removedAt": {"N": FAR_AWAY}}
NO_SLOT_LEFT = [error("ConditionalCheckFailedException", **user_row(end)) for end in (LONG_AGO, FAR_AWAY)]
# For each operation, one answer for each way in which the function can continue.
ANSWERS = {
    "UpdateItem": [{}, error("InternalServerError"), *NO_SLOT_LEFT],
    "PutItem": [{}, error("InternalServerError")],
    "DeleteItem": [{}, error("InternalServerError"), error("ConditionalCheckFailedException"), {"Attributes": ROW}],
    "GetItem": [{}, error("InternalServerError"), user_row(FAR_AWAY)],
    "PostToConnection": [{}, error("InternalServerError"), error("GoneException")],
    "DeleteConnection": [{}, error("InternalServerError"), error("GoneException")],
}


class Call(NamedTuple):
    client: Any
    operation: str


@contextmanager
def answer_calls(answer: Callable[..., tuple[AWSResponse, Output]], client: Any) -> Iterator[None]:
    handler = partial(answer, client)
    client.meta.events.register("before-call", handler)
    yield
    client.meta.events.unregister("before-call", handler)


def run_all_call_sequences(websocket: ModuleType, event: Event) -> list[list[Call]]:
    """Run the function once for each sequence of answers that AWS can give; return the calls of each run."""
    sequences = []
    untried: list[list[Output]] = [[]]

    def answer(client: Any, model: Any, **_: object) -> tuple[AWSResponse, Output]:
        if len(calls) == len(answers):
            first, *others = ANSWERS[model.name]
            untried.extend([*answers, other] for other in others)
            answers.append(first)
        output = answers[len(calls)]
        calls.append(Call(client, model.name))
        return AWSResponse("", 400 if "Error" in output else 200, HTTPHeaders(), None), output

    with answer_calls(answer, websocket.dynamodb), answer_calls(answer, websocket.management):
        while untried:
            answers, calls = untried.pop(), list[Call]()
            with suppress(ClientError):
                websocket.handler(event, None)
            sequences.append(calls)
    return sequences


def compute_longest_seconds(client: Any) -> float:
    """Return how long a call takes if every attempt times out and every backoff has the greatest length."""
    config = client.meta.config
    attempts = config.retries["total_max_attempts"]
    detector = ThrottlingErrorDetector(RetryEventAdapter())
    backoff = ExponentialBackoff(
        random=lambda: 1.0, service_name=client.meta.service_model.service_name, throttling_detector=detector
    )
    waits = [
        backoff.delay_amount(RetryContext(attempt, parsed_response=error("ThrottlingException")))
        for attempt in range(1, attempts)
    ]
    return float((config.connect_timeout + config.read_timeout) * attempts + sum(waits))


def test_longest_route_ends_before_the_timeout_of_the_function(cold_start: ColdStart) -> None:
    websocket = cold_start("websocket", **WEBSOCKET, **LIMITED)
    timeout = find_functions(synthesize_template(**EVERY_OPTION))["websocket"]["Timeout"]

    sequences = [calls for event in ROUTES.values() for calls in run_all_call_sequences(websocket, event)]

    assert {call.operation for calls in sequences for call in calls} == ANSWERS.keys()
    assert max(sum(compute_longest_seconds(call.client) for call in calls) for calls in sequences) < timeout


# A service that gives no answer


Start = Callable[[int], ModuleType]


@pytest.fixture
def start(cold_start: ColdStart, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Return how to start the function with both services at a port, and its own configuration with a short timeout."""

    def started(port: int) -> ModuleType:
        url = f"http://127.0.0.1:{port}"
        endpoints = {"AWS_ENDPOINT_URL_DYNAMODB": url, "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": url}
        websocket = cold_start("websocket", **WEBSOCKET, **endpoints)
        create = partial(websocket.session.create_client, config=websocket.config.merge(Config(read_timeout=0.05)))
        monkeypatch.setattr(websocket, "dynamodb", create("dynamodb"))
        monkeypatch.setattr(websocket, "management", create("apigatewaymanagementapi", endpoint_url=url))
        return websocket

    return started


@pytest.fixture
def silent_server() -> Iterator[socket.socket]:
    """Listen on a port where the kernel accepts connections, but nothing reads from them or answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def count_connections(server: socket.socket) -> int:
    count = 0
    with suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            count += 1
    return count


NO_ANSWER = pytest.mark.parametrize(
    ("route", "message"),
    [
        ("connect", "dynamodb gave no answer to PutItem: "),
        ("disconnect", "dynamodb gave no answer to DeleteItem: "),
        ("message", "apigatewaymanagementapi gave no answer to PostToConnection: "),
    ],
)


@NO_ANSWER
def test_service_that_never_answers_is_an_error_that_names_service_and_operation(
    start: Start, silent_server: socket.socket, route: str, message: str
) -> None:
    websocket = start(silent_server.getsockname()[1])

    with pytest.raises(websocket.ServiceUnavailable, match=f"^{message}Read timeout"):
        websocket.handler(ROUTES[route], None)

    assert count_connections(silent_server) == websocket.dynamodb.meta.config.retries["total_max_attempts"]


@NO_ANSWER
def test_service_that_refuses_connections_is_an_error_that_names_service_and_operation(
    start: Start, route: str, message: str
) -> None:
    websocket = start(find_free_port())

    with pytest.raises(websocket.ServiceUnavailable, match=f"^{message}Could not connect"):
        websocket.handler(ROUTES[route], None)


def test_missing_credentials_are_not_blamed_on_the_service(cold_start: ColdStart) -> None:
    none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}
    websocket = cold_start("websocket", **WEBSOCKET, **none)

    with pytest.raises(NoCredentialsError):
        websocket.handler(ROUTES["connect"], None)


# Connections


class KeepAliveServer(LoopbackServer):
    """A server that accepts every call, keeps connections open, and counts them."""

    def __init__(self) -> None:
        headers = {"Connection": "keep-alive", "Content-Type": "application/x-amz-json-1.0", "Content-Length": "2"}
        super().__init__(Answer(headers=headers, body=[b"{}"]))
        self.connections = 0

    def get_request(self) -> Any:
        self.connections += 1
        return super().get_request()


@contextmanager
def close_at_the_end(*clients: Any) -> Iterator[None]:
    try:
        yield
    finally:
        for client in clients:
            client.close()


def test_invocations_share_one_connection_to_each_service(cold_start: ColdStart) -> None:
    with KeepAliveServer() as dynamodb, KeepAliveServer() as management:
        endpoints = {
            "AWS_ENDPOINT_URL_DYNAMODB": dynamodb.url,
            "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": management.url,
        }
        websocket = cold_start("websocket", **WEBSOCKET, **LIMITED, **endpoints)
        with close_at_the_end(websocket.dynamodb, websocket.management):
            for event in [*ROUTES.values()] * 2:
                assert websocket.handler(event, None) == {"statusCode": 200}

    assert (len(dynamodb.requests) > 1, len(management.requests) > 1) == (True, True)
    assert (dynamodb.connections, management.connections) == (1, 1)
