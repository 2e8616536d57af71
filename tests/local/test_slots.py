"""The limit of connections for each user: slots in a real DynamoDB, and simultaneous connects in real threads."""

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

from benchmarks.user_pool import SUB
from local.aws.iam import ADMINISTRATOR
from local.aws.ministack import LocalAws
from tests.fixtures.events import CONNECTION_ID, EventFactory, add_headers, load_event
from tests.fixtures.functions import NOW, WEBSOCKET, Clock, ColdStart

OPTIONS = {"MAX_CONNECTIONS_PER_USER": "3", "USER_TABLE_NAME": "users"}
TWO_HOURS = 7200
HANDSHAKE_SECONDS = 30


class User:
    """A user who connects and disconnects. `connect` returns the status of the answer."""

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
    """Start the function, with three slots for each user in a real DynamoDB."""
    credentials = {"AWS_ACCESS_KEY_ID": ADMINISTRATOR, "AWS_SECRET_ACCESS_KEY": ADMINISTRATOR}
    websocket = cold_start("websocket", **WEBSOCKET, **OPTIONS, **credentials, AWS_ENDPOINT_URL_DYNAMODB=database.url)
    monkeypatch.setattr(websocket, "time", SimpleNamespace(time=clock))
    assert websocket.dynamodb.exceptions  # botocore creates them on first use, and two threads would create two sets
    yield websocket
    websocket.dynamodb.close()


@pytest.fixture
def ada(limited: ModuleType) -> User:
    return User(limited)


def find_stored(database: LocalAws, user: User) -> set[str]:
    """Return the ids of the user's connections in the table."""
    rows = database.client("dynamodb").scan(TableName="connections")["Items"]
    return {row["connectionId"]["S"] for row in rows if row["userId"]["S"] == user.id}


def get_user_row(database: LocalAws, user: User) -> dict[str, Any]:
    row: dict[str, Any] = database.client("dynamodb").get_item(TableName="users", Key={"userId": {"S": user.id}})
    return dict(row["Item"])


# Simultaneous connects


def test_twenty_simultaneous_connects_get_three_slots(database: LocalAws, ada: User) -> None:
    statuses = ada.connect_at_once(*TWENTY)

    assert Counter(statuses) == {200: 3, 429: 17}
    admitted = {ada.connection_id(name) for name, status in zip(TWENTY, statuses, strict=True) if status == 200}
    assert find_stored(database, ada) == admitted


def test_twenty_simultaneous_connects_get_three_slots_that_were_released(ada: User) -> None:
    assert ada.connect_at_once("a", "b", "c") == [200, 200, 200]
    for name in ("a", "b", "c"):
        ada.disconnect(name)

    assert Counter(ada.connect_at_once(*TWENTY)) == {200: 3, 429: 17}


def test_twenty_simultaneous_connects_get_three_slots_that_have_expired(ada: User, clock: Clock) -> None:
    assert ada.connect_at_once("a", "b", "c", exp=NOW + 10) == [200, 200, 200]
    clock.now += 10

    assert Counter(ada.connect_at_once(*TWENTY)) == {200: 3, 429: 17}


def test_last_slot_goes_to_one_of_two(ada: User) -> None:
    ada.connect_at_once("a", "b")

    assert sorted(ada.connect_at_once("c", "d")) == [200, 429]


# One after the other


def test_connect_without_a_free_slot_is_refused_with_a_reason_and_not_stored(
    limited: ModuleType, database: LocalAws, ada: User, caplog: pytest.LogCaptureFixture
) -> None:
    ada.connect_at_once("a", "b", "c")
    before = find_stored(database, ada), get_user_row(database, ada)
    authorizer = {"userId": ada.id, "exp": str(NOW + 600)}

    answer = limited.handler(load_event("connect", authorizer=authorizer), None)

    assert (answer["statusCode"], set(answer)) == (429, {"statusCode", "body"})
    assert json.loads(answer["body"]) == {"message": "You already have 3 connections, which is the limit."}
    assert (find_stored(database, ada), get_user_row(database, ada)) == before
    assert vars(caplog.records[-1])["reason"] == "too_many_connections"


def test_users_do_not_share_slots(limited: ModuleType, ada: User) -> None:
    ada.connect_at_once("a", "b", "c")

    assert User(limited).connect("a") == 200


def test_disconnect_releases_one_slot(ada: User) -> None:
    ada.connect_at_once("a", "b", "c")

    ada.disconnect("b")

    assert [ada.connect("d"), ada.connect("e")] == [200, 429]


def test_disconnect_releases_the_slot_after_a_push_has_deleted_the_row(database: LocalAws, ada: User) -> None:
    """A push deletes the row if its post gets 410 before `$disconnect` runs."""
    ada.connect_at_once("a", "b", "c")
    key = {"connectionId": {"S": ada.connection_id("b")}}
    database.client("dynamodb").delete_item(TableName="connections", Key=key)

    ada.disconnect("b")

    assert [ada.connect("d"), ada.connect("e")] == [200, 429]


def test_disconnect_without_an_authorizer_releases_the_slot_of_the_user_in_the_row(
    limited: ModuleType, ada: User
) -> None:
    ada.connect_at_once("a", "b", "c")

    limited.handler(load_event("disconnect", authorizer=None, connectionId=ada.connection_id("b")), None)

    assert [ada.connect("d"), ada.connect("e")] == [200, 429]


def test_second_disconnect_releases_nothing(ada: User) -> None:
    ada.connect_at_once("a", "b", "c")

    for _ in range(2):
        ada.disconnect("b")

    assert [ada.connect("d"), ada.connect("e")] == [200, 429]


@pytest.mark.parametrize(("exp", "end"), [(NOW + 600, NOW + 600), (NOW + 86400, NOW + TWO_HOURS)], ids=["exp", "2 h"])
def test_slot_that_was_not_released_is_free_after_its_expiry(ada: User, clock: Clock, exp: int, end: int) -> None:
    """API Gateway does not send `$disconnect` for every connection that ends."""
    for name in ("a", "b", "c"):
        assert ada.connect(name, exp=exp) == 200

    clock.now = end - 1
    assert ada.connect("d", exp=end + 600) == 429
    clock.now = end
    assert [ada.connect(name, exp=end + 600) for name in ("e", "f", "g", "h")] == [200, 200, 200, 429]


def test_expired_slot_is_taken_before_one_that_has_not_expired(database: LocalAws, ada: User, clock: Clock) -> None:
    for name, exp in (("a", NOW + 10), ("b", NOW + 600), ("c", NOW + 20)):
        ada.connect(name, exp=exp)
    clock.now += 10

    assert [ada.connect("d"), ada.connect("e")] == [200, 429]
    assert {slot.partition(" ")[2] for slot in get_user_row(database, ada)["slots"]["SS"]} == {
        ada.connection_id(name) for name in ("b", "c", "d")
    }


def test_late_disconnect_releases_no_slot_of_another_connection(ada: User, clock: Clock) -> None:
    ada.connect("a", exp=NOW + 10)
    clock.now += 10
    assert [ada.connect(name) for name in ("b", "c", "d")] == [200, 200, 200]

    ada.disconnect("a")

    assert ada.connect("e") == 429


def answer_a_message_with_410(websocket: ModuleType, connection_id: str) -> None:
    """Run the function for a message of a client that has gone."""
    with Stubber(websocket.management) as management:
        management.add_client_error("post_to_connection", "GoneException", http_status_code=410)
        websocket.handler(load_event("default", connectionId=connection_id), None)


@pytest.mark.parametrize("seconds", [0, HANDSHAKE_SECONDS])
def test_young_connection_that_got_410_keeps_its_row_and_slot_until_disconnect(
    limited: ModuleType, database: LocalAws, ada: User, clock: Clock, seconds: int
) -> None:
    ada.connect_at_once("a", "b", "c")
    clock.now += seconds

    answer_a_message_with_410(limited, ada.connection_id("a"))

    assert ada.connection_id("a") in find_stored(database, ada)
    assert ada.connect("d") == 429
    ada.disconnect("a")
    assert ada.connection_id("a") not in find_stored(database, ada)
    assert [ada.connect("d"), ada.connect("e")] == [200, 429]


def test_connection_that_got_410_after_its_handshake_loses_its_row_and_slot(
    limited: ModuleType, database: LocalAws, ada: User, clock: Clock
) -> None:
    ada.connect_at_once("a", "b", "c")
    clock.now += HANDSHAKE_SECONDS + 1

    answer_a_message_with_410(limited, ada.connection_id("a"))

    assert find_stored(database, ada) == {ada.connection_id(name) for name in "bc"}
    assert [ada.connect("d"), ada.connect("e")] == [200, 429]


def test_connection_that_got_410_and_has_no_connected_at_loses_its_row(
    limited: ModuleType, database: LocalAws, ada: User
) -> None:
    """An earlier version stored rows without `connectedAt`."""
    ada.connect("a")
    key = {"connectionId": {"S": ada.connection_id("a")}}
    database.client("dynamodb").update_item(TableName="connections", Key=key, UpdateExpression="REMOVE connectedAt")

    answer_a_message_with_410(limited, ada.connection_id("a"))

    assert find_stored(database, ada) == set()


def test_connection_that_got_410_and_has_no_row_is_no_error(limited: ModuleType, database: LocalAws, ada: User) -> None:
    answer_a_message_with_410(limited, ada.connection_id("a"))

    assert find_stored(database, ada) == set()


def test_retry_by_the_sdk_takes_one_slot(limited: ModuleType, ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """DynamoDB took the slot, but its answer was lost."""
    ada.connect_at_once("a", "b")
    once = limited.dynamodb.update_item

    def twice(**call: Any) -> Any:
        once(**call)
        return once(**call)

    monkeypatch.setattr(limited.dynamodb, "update_item", twice)

    assert ada.connect("c") == 200
    assert ada.connect("d") == 429


def test_connection_that_cannot_be_stored_releases_its_slot(
    limited: ModuleType, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "InternalServerError"}}, "PutItem")

    with monkeypatch.context() as outage:
        outage.setattr(limited.dynamodb, "put_item", fail)
        for name in "abc":
            with pytest.raises(ClientError):
                ada.connect(name)

    assert ada.connect("d") == 200


def test_slot_whose_answer_is_lost_is_released(limited: ModuleType, ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """DynamoDB added the slot, but the answers to the call and to its retry were lost."""
    update = limited.dynamodb.update_item

    def lose_answer(**call: Any) -> None:
        update(**call)
        if call["UpdateExpression"].startswith("ADD"):
            raise limited.ServiceUnavailable("dynamodb gave no answer to UpdateItem")

    with monkeypatch.context() as outage:
        outage.setattr(limited.dynamodb, "update_item", lose_answer)
        for name in "abc":
            with pytest.raises(limited.ServiceUnavailable):
                ada.connect(name)

    assert ada.connect("d") == 200


def test_connect_that_is_refused_for_its_subprotocol_takes_no_slot(limited: ModuleType, ada: User) -> None:
    authorizer = {"userId": ada.id, "exp": str(NOW + 600)}
    event = add_headers(load_event("connect", authorizer=authorizer), ("Sec-WebSocket-Protocol", "echo.v2"))

    refused = [limited.handler(event, None)["statusCode"] for _ in range(3)]

    assert refused == [400, 400, 400]
    assert ada.connect_at_once("a", "b", "c") == [200, 200, 200]


def test_row_of_a_user_is_removed_after_its_last_slot_has_expired(database: LocalAws, ada: User, clock: Clock) -> None:
    """DynamoDB deletes the row by its time to live."""
    ada.connect("a", exp=NOW + 86400)
    clock.now += 60
    ada.connect("b", exp=NOW + 86400)

    assert get_user_row(database, ada)["removedAt"] == {"N": str(NOW + 60 + TWO_HOURS)}


# Calls


@pytest.mark.parametrize("options", [OPTIONS | {"MAX_CONNECTIONS_PER_USER": "0"}], ids=["0"])
def test_user_table_is_not_used_without_a_limit(
    websocket: ModuleType, table: Stubber, connect_event: EventFactory, disconnect_event: EventFactory
) -> None:
    for operation in ("put_item", "delete_item"):
        table.add_response(operation, {})

    assert [websocket.handler(event(), None)["statusCode"] for event in (connect_event, disconnect_event)] == [200, 200]


@pytest.mark.parametrize("options", [OPTIONS], ids=["3"])
def test_disconnect_without_an_authorizer_reads_no_slots(
    websocket: ModuleType, table: Stubber, disconnect_event: EventFactory
) -> None:
    table.add_response("delete_item", {})

    assert websocket.handler(disconnect_event(authorizer=None), None) == {"statusCode": 200}


@pytest.mark.parametrize("options", [OPTIONS], ids=["3"])
def test_disconnect_reads_no_slots_if_the_row_was_stored(
    websocket: ModuleType, table: Stubber, disconnect_event: EventFactory
) -> None:
    row = {"connectionId": {"S": CONNECTION_ID}, "userId": {"S": SUB}, "removedAt": {"N": str(NOW)}}
    table.add_response("delete_item", {"Attributes": row})
    table.add_response(
        "update_item",
        {},
        {
            "TableName": "users",
            "Key": {"userId": {"S": SUB}},
            "UpdateExpression": "DELETE slots :slots",
            "ExpressionAttributeValues": {":slots": {"SS": [f"{NOW} {CONNECTION_ID}"]}},
        },
    )

    assert websocket.handler(disconnect_event(), None) == {"statusCode": 200}


@pytest.mark.parametrize("options", [OPTIONS], ids=["3"])
def test_disconnect_reads_slots_consistently(
    websocket: ModuleType, table: Stubber, disconnect_event: EventFactory
) -> None:
    """An eventually consistent read could miss a slot that was taken a second ago."""
    call = {"TableName": "users", "Key": {"userId": {"S": SUB}}, "ConsistentRead": True}
    table.add_response("delete_item", {})
    table.add_response("get_item", {}, call)

    assert websocket.handler(disconnect_event(), None) == {"statusCode": 200}


@pytest.mark.parametrize("options", [OPTIONS], ids=["3"])
def test_connection_whose_slot_cannot_be_taken_is_an_incident_and_not_stored(
    websocket: ModuleType, table: Stubber, connect_event: EventFactory
) -> None:
    for _ in ("take", "release"):
        table.add_client_error("update_item", "AccessDeniedException", http_status_code=400)

    with pytest.raises(ClientError, match="AccessDeniedException"):
        websocket.handler(connect_event(), None)
