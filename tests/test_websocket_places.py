"""How many connections a user may hold: the places in a real DynamoDB, and simultaneous connects in real threads."""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from local.aws import LocalAws
from local.iam import ADMINISTRATOR
from tests.conftest import (
    CALLBACK_URL,
    CONNECTION_ID,
    NOW,
    SUB,
    Clock,
    ColdStart,
    EventFactory,
    load_event,
    with_headers,
)

OPTIONS = {"MAX_CONNECTIONS_PER_USER": "3", "USER_TABLE_NAME": "users"}
TWO_HOURS = 7200


class User:
    """One who connects and disconnects; says how that was answered."""

    def __init__(self, websocket: ModuleType) -> None:
        self.id = str(uuid.uuid4())
        self._websocket = websocket

    def connection_id(self, name: str) -> str:
        return f"{self.id}-{name}"

    def connect(self, name: str, *, exp: int = NOW + 600) -> int:
        authorizer = {"userId": self.id, "exp": str(exp)}
        event = load_event("connect", authorizer=authorizer, connectionId=self.connection_id(name))
        return int(self._websocket.handler(event, None)["statusCode"])

    def connect_at_once(self, *names: str, exp: int = NOW + 600) -> list[int]:
        start = threading.Barrier(len(names))

        def connect(name: str) -> int:
            start.wait(10)
            return self.connect(name, exp=exp)

        with ThreadPoolExecutor(len(names)) as pool:
            return list(pool.map(connect, names))

    def disconnect(self, name: str) -> None:
        authorizer = {"userId": self.id}
        event = load_event("disconnect", authorizer=authorizer, connectionId=self.connection_id(name))
        self._websocket.handler(event, None)


TWENTY = [str(number) for number in range(20)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limited(
    cold_start: ColdStart, monkeypatch: pytest.MonkeyPatch, database: LocalAws, clock: Clock
) -> Iterator[ModuleType]:
    """The function after its init phase, with three places for each user."""
    websocket = cold_start(
        "websocket",
        CONNECTION_TABLE_NAME="connections",
        CALLBACK_URL=CALLBACK_URL,
        AWS_ENDPOINT_URL_DYNAMODB=database.url,
        AWS_ACCESS_KEY_ID=ADMINISTRATOR,
        AWS_SECRET_ACCESS_KEY=ADMINISTRATOR,
        **OPTIONS,
    )
    monkeypatch.setattr(websocket, "time", SimpleNamespace(time=clock))
    client = websocket.dynamodb.meta.client
    assert client.exceptions  # made on first use, in which simultaneous threads get different ones
    yield websocket
    client.close()


@pytest.fixture
def ada(limited: ModuleType) -> User:
    return User(limited)


def stored(database: LocalAws, user: User) -> set[str]:
    """The ids of the user's connections in the table."""
    rows = database.client("dynamodb").scan(TableName="connections")["Items"]
    return {row["connectionId"]["S"] for row in rows if row["userId"]["S"] == user.id}


def user_row(database: LocalAws, user: User) -> dict[str, Any]:
    row: dict[str, Any] = database.client("dynamodb").get_item(TableName="users", Key={"userId": {"S": user.id}})
    return dict(row["Item"])


# Simultaneous connects


def test_twenty_simultaneous_connects_get_three_places(database: LocalAws, ada: User) -> None:
    statuses = ada.connect_at_once(*TWENTY)

    assert Counter(statuses) == {200: 3, 429: 17}
    admitted = {ada.connection_id(name) for name, status in zip(TWENTY, statuses, strict=True) if status == 200}
    assert stored(database, ada) == admitted


def test_twenty_simultaneous_connects_get_three_places_that_were_given_back(ada: User) -> None:
    assert ada.connect_at_once("a", "b", "c") == [200, 200, 200]
    for name in ("a", "b", "c"):
        ada.disconnect(name)

    assert Counter(ada.connect_at_once(*TWENTY)) == {200: 3, 429: 17}


def test_twenty_simultaneous_connects_get_three_places_whose_time_is_over(ada: User, clock: Clock) -> None:
    assert ada.connect_at_once("a", "b", "c", exp=NOW + 10) == [200, 200, 200]
    clock.now += 10

    assert Counter(ada.connect_at_once(*TWENTY)) == {200: 3, 429: 17}


def test_last_place_goes_to_one_of_two(ada: User) -> None:
    ada.connect_at_once("a", "b")

    assert sorted(ada.connect_at_once("c", "d")) == [200, 429]


# One after the other


def test_connect_without_a_place_is_refused_with_a_reason_and_not_stored(
    limited: ModuleType, database: LocalAws, ada: User, caplog: pytest.LogCaptureFixture
) -> None:
    ada.connect_at_once("a", "b", "c")
    before = stored(database, ada), user_row(database, ada)
    authorizer = {"userId": ada.id, "exp": str(NOW + 600)}

    answer = limited.handler(load_event("connect", authorizer=authorizer), None)

    assert (answer["statusCode"], set(answer)) == (429, {"statusCode", "body"})
    assert json.loads(answer["body"]) == {"message": "You have 3 connections, which is as many as there may be."}
    assert (stored(database, ada), user_row(database, ada)) == before
    assert vars(caplog.records[-1])["reason"] == "too_many_connections"


def test_places_of_a_user_are_nobody_elses(limited: ModuleType, ada: User) -> None:
    ada.connect_at_once("a", "b", "c")

    assert User(limited).connect("a") == 200


def test_disconnect_gives_one_place_back(ada: User) -> None:
    ada.connect_at_once("a", "b", "c")

    ada.disconnect("b")

    assert [ada.connect("d"), ada.connect("e")] == [200, 429]


def test_disconnect_gives_the_place_back_after_a_push_has_deleted_the_row(database: LocalAws, ada: User) -> None:
    """As the README's push does, that meets a peer before its `$disconnect` is told."""
    ada.connect_at_once("a", "b", "c")
    key = {"connectionId": {"S": ada.connection_id("b")}}
    database.client("dynamodb").delete_item(TableName="connections", Key=key)

    ada.disconnect("b")

    assert [ada.connect("d"), ada.connect("e")] == [200, 429]


def test_disconnect_whose_authorizer_is_unknown_gives_back_the_place_of_whom_the_row_names(
    limited: ModuleType, ada: User
) -> None:
    ada.connect_at_once("a", "b", "c")

    limited.handler(load_event("disconnect", authorizer=None, connectionId=ada.connection_id("b")), None)

    assert [ada.connect("d"), ada.connect("e")] == [200, 429]


def test_second_disconnect_gives_nothing_back(ada: User) -> None:
    ada.connect_at_once("a", "b", "c")

    for _ in range(2):
        ada.disconnect("b")

    assert [ada.connect("d"), ada.connect("e")] == [200, 429]


@pytest.mark.parametrize(("exp", "end"), [(NOW + 600, NOW + 600), (NOW + 86400, NOW + TWO_HOURS)], ids=["exp", "2 h"])
def test_place_that_nobody_gave_back_is_free_once_its_time_is_over(ada: User, clock: Clock, exp: int, end: int) -> None:
    """`$disconnect` is sent at best effort."""
    for name in ("a", "b", "c"):
        assert ada.connect(name, exp=exp) == 200

    clock.now = end - 1
    assert ada.connect("d", exp=end + 600) == 429
    clock.now = end
    assert [ada.connect(name, exp=end + 600) for name in ("e", "f", "g", "h")] == [200, 200, 200, 429]


def test_place_whose_time_is_over_is_taken_before_one_that_lasts(database: LocalAws, ada: User, clock: Clock) -> None:
    for name, exp in (("a", NOW + 10), ("b", NOW + 600), ("c", NOW + 20)):
        ada.connect(name, exp=exp)
    clock.now += 10

    assert [ada.connect("d"), ada.connect("e")] == [200, 429]
    assert {place.partition(" ")[2] for place in user_row(database, ada)["places"]["SS"]} == {
        ada.connection_id(name) for name in ("b", "c", "d")
    }


def test_late_disconnect_gives_back_no_place_that_somebody_else_has_by_now(ada: User, clock: Clock) -> None:
    ada.connect("a", exp=NOW + 10)
    clock.now += 10
    assert [ada.connect(name) for name in ("b", "c", "d")] == [200, 200, 200]

    ada.disconnect("a")

    assert ada.connect("e") == 429


def test_peer_that_is_gone_gives_its_place_back(limited: ModuleType, ada: User) -> None:
    ada.connect_at_once("a", "b", "c")

    with Stubber(limited.management) as management:
        management.add_client_error("post_to_connection", "GoneException", http_status_code=410)
        limited.handler(load_event("default", connectionId=ada.connection_id("a")), None)

    assert [ada.connect("d"), ada.connect("e")] == [200, 429]


def test_call_that_the_sdk_repeats_takes_one_place(
    limited: ModuleType, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DynamoDB has counted the place, then its answer was lost."""
    ada.connect_at_once("a", "b")
    once = limited.users.update_item

    def twice(**call: Any) -> Any:
        once(**call)
        return once(**call)

    monkeypatch.setattr(limited.users, "update_item", twice)

    assert ada.connect("c") == 200
    assert ada.connect("d") == 429


def test_connection_that_cannot_be_stored_gives_its_place_back(
    limited: ModuleType, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "InternalServerError"}}, "PutItem")

    with monkeypatch.context() as outage:
        outage.setattr(limited.connections, "put_item", fail)
        for connection_id in "abc":
            with pytest.raises(ClientError):
                ada.connect(connection_id)

    assert ada.connect("d") == 200


def test_connect_that_is_refused_for_its_subprotocol_takes_no_place(limited: ModuleType, ada: User) -> None:
    authorizer = {"userId": ada.id, "exp": str(NOW + 600)}
    event = with_headers(load_event("connect", authorizer=authorizer), ("Sec-WebSocket-Protocol", "echo.v2"))

    refused = [limited.handler(event, None)["statusCode"] for _ in range(3)]

    assert refused == [400, 400, 400]
    assert ada.connect_at_once("a", "b", "c") == [200, 200, 200]


def test_row_of_a_user_outlasts_every_place_in_it(database: LocalAws, ada: User, clock: Clock) -> None:
    """By its time to live DynamoDB deletes it."""
    ada.connect("a", exp=NOW + 86400)
    clock.now += 60
    ada.connect("b", exp=NOW + 86400)

    assert user_row(database, ada)["removedAt"] == {"N": str(NOW + 60 + TWO_HOURS)}


# Calls


@pytest.mark.parametrize("options", [OPTIONS | {"MAX_CONNECTIONS_PER_USER": "0"}], ids=["0"])
def test_users_are_not_asked_for_where_connections_are_not_counted(
    websocket: ModuleType, table: Stubber, connect_event: EventFactory, disconnect_event: EventFactory
) -> None:
    for operation in ("put_item", "delete_item"):
        table.add_response(operation, {})

    assert [websocket.handler(event(), None)["statusCode"] for event in (connect_event, disconnect_event)] == [200, 200]


@pytest.mark.parametrize("options", [OPTIONS], ids=["3"])
def test_disconnect_of_nobody_asks_for_no_user(
    websocket: ModuleType, table: Stubber, disconnect_event: EventFactory
) -> None:
    table.add_response("delete_item", {})

    assert websocket.handler(disconnect_event(authorizer=None), None) == {"statusCode": 200}


@pytest.mark.parametrize("options", [OPTIONS], ids=["3"])
def test_disconnect_asks_for_no_place_that_the_row_tells(
    websocket: ModuleType, table: Stubber, disconnect_event: EventFactory
) -> None:
    row = {"connectionId": {"S": CONNECTION_ID}, "userId": {"S": SUB}, "removedAt": {"N": str(NOW)}}
    table.add_response("delete_item", {"Attributes": row})
    table.add_response(
        "update_item",
        {},
        {
            "TableName": "users",
            "Key": {"userId": SUB},
            "UpdateExpression": "DELETE places :places",
            "ExpressionAttributeValues": {":places": {f"{NOW} {CONNECTION_ID}"}},
        },
    )

    assert websocket.handler(disconnect_event(), None) == {"statusCode": 200}


@pytest.mark.parametrize("options", [OPTIONS], ids=["3"])
def test_disconnect_reads_a_place_that_was_taken_just_now(
    websocket: ModuleType, table: Stubber, disconnect_event: EventFactory
) -> None:
    """A read is of what was true a second ago unless it asks for more."""
    table.add_response("delete_item", {})
    table.add_response("get_item", {}, {"TableName": "users", "Key": {"userId": SUB}, "ConsistentRead": True})

    assert websocket.handler(disconnect_event(), None) == {"statusCode": 200}


@pytest.mark.parametrize("options", [OPTIONS], ids=["3"])
def test_connection_whose_place_cannot_be_counted_is_an_incident_and_not_stored(
    websocket: ModuleType, table: Stubber, connect_event: EventFactory
) -> None:
    table.add_client_error("update_item", "AccessDeniedException", http_status_code=400)

    with pytest.raises(ClientError, match="AccessDeniedException"):
        websocket.handler(connect_event(), None)
