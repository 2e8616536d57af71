"""`@connections`: PostToConnection, GetConnection, DeleteConnection, by boto3 and by plain HTTP."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError

from tests.conformance.conftest import case
from tests.conformance.gateway import PATIENCE_SECONDS, Client, Gateway

MESSAGE = 128 * 1024
METHODS = ("POST", "GET", "DELETE")
OPERATIONS = {"POST": "post_to_connection", "GET": "get_connection", "DELETE": "delete_connection"}
NEVER_EXISTED = "AAAAAAAAAAAAAAA="
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

# The two spellings of a connection's path; AWS recommends the second.
SPELLINGS = {
    "plain": lambda gateway, id_: f"/{gateway.stage.name}/@connections/{id_}",
    "encoded": lambda gateway, id_: f"/{gateway.stage.name}/%40connections/{quote(id_)}",
}
spellings = pytest.mark.parametrize("spelling", SPELLINGS)
methods = pytest.mark.parametrize("method", METHODS)


def path(gateway: Gateway, connection_id: str, spelling: str = "encoded") -> str:
    return SPELLINGS[spelling](gateway, connection_id)


def make_body(method: str) -> bytes | None:
    return b"hello" if method == "POST" else None


async def open_and_close(gateway: Gateway) -> str:
    """Open and close a connection; return its id."""
    client = await gateway.open()
    connection_id = await client.id()
    await client.socket.close()
    return connection_id


# Calls that succeed


@case("post-is-text")
async def test_post_reaches_the_client_as_text(main: Gateway) -> None:
    client = await main.open()

    response = await main.call("post_to_connection", await client.id(), Data="Hello World! ü".encode())

    assert response["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert await client.receive() == "Hello World! ü"


@case("connections-path")
@spellings
async def test_path_works_plain_and_encoded(main: Gateway, spelling: str) -> None:
    client = await main.open()

    url = path(main, await client.id(), spelling)
    answer = await main.request("POST", url, b"Hello World!", signed=True, headers={"Content-Type": "text/plain"})

    assert (answer.status, answer.body) == (200, b"")
    assert await client.receive() == "Hello World!"


@case("delete-204")
@spellings
async def test_delete_gets_204_without_a_body(main: Gateway, spelling: str) -> None:
    client = await main.open()

    answer = await main.request("DELETE", path(main, await client.id(), spelling), signed=True)

    assert (answer.status, answer.body) == (204, b"")
    assert (await client.wait_closed())[0] == 1000


@case("get-connection")
@spellings
async def test_get_describes_the_connection(main: Gateway, spelling: str) -> None:
    client = await main.open(options={"user_agent_header": "my-client/1.0"})
    context = (await client.report())["requestContext"]

    answer = await main.request("GET", path(main, context["connectionId"], spelling), signed=True)

    connected_at = datetime.fromtimestamp(context["connectedAt"] / 1000, UTC)
    assert answer.status == 200
    assert answer.json.keys() == {"connectedAt", "identity", "lastActiveAt"}
    assert answer.json["identity"] == {"sourceIp": context["identity"]["sourceIp"], "userAgent": "my-client/1.0"}
    assert answer.json["connectedAt"] == connected_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert TIME.fullmatch(answer.json["lastActiveAt"])
    assert answer.json["lastActiveAt"] >= answer.json["connectedAt"]


@case("get-connection")
async def test_boto3_parses_the_answer_to_a_get(main: Gateway) -> None:
    client = await main.open()

    response = await main.call("get_connection", await client.id())

    assert {type(response[name]) for name in ("ConnectedAt", "LastActiveAt")} == {datetime}
    assert response["Identity"].keys() == {"SourceIp", "UserAgent"}


@case("get-no-user-agent")
async def test_get_has_no_user_agent_if_the_client_sent_none(main: Gateway) -> None:
    client = await main.open(options={"user_agent_header": None})

    answer = await main.request("GET", path(main, await client.id()), signed=True)

    assert answer.json["identity"].get("userAgent") is None


@case("get-last-active")
@pytest.mark.parametrize("direction", ["in", "out"])
async def test_last_active_time_moves_with_messages(main: Gateway, direction: str) -> None:
    client = await main.open()
    connection_id = await client.id()
    before = (await main.call("get_connection", connection_id))["LastActiveAt"]

    if direction == "in":
        await client.send("hello")
    else:
        await main.post(connection_id, b"hello")

    after = before
    async with asyncio.timeout(PATIENCE_SECONDS):  # a message that is not answered shows only here
        while after == before:
            after = (await main.call("get_connection", connection_id))["LastActiveAt"]
    assert after > before


@case("post-many-clients")
async def test_function_posts_to_several_clients(main: Gateway) -> None:
    clients = [await main.open() for _ in range(3)]

    await clients[0].do(*[["post", await client.id(), "Hello World!"] for client in clients])

    assert [await client.receive() for client in clients] == ["Hello World!"] * 3


@case("post-from-first-message")
async def test_function_of_the_first_message_can_post(main: Gateway) -> None:
    client = await main.open()

    await client.do(["post", "self", "welcome"])

    assert await client.receive() == "welcome"


@case("post-at-limit")
async def test_post_of_128_kb_is_delivered(main: Gateway) -> None:
    client = await main.open()

    await main.post(await client.id(), b"x" * MESSAGE)

    assert await client.receive() == "x" * MESSAGE


@case("post-empty")
async def test_empty_post_is_an_empty_message(main: Gateway) -> None:
    client = await main.open()

    answer = await main.request("POST", path(main, await client.id()), b"", signed=True)
    await main.post(await client.id(), b"after it")

    received = [await client.receive()]
    if received == [""]:
        received.append(await client.receive())
    assert (answer.status, received) == (200, ["", "after it"])


@case("post-not-utf-8")
async def test_post_that_is_not_utf_8_gets_400(main: Gateway) -> None:
    client = await main.open()

    answer = await main.request("POST", path(main, await client.id()), b"\xff\xfe", signed=True)

    assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "BadRequestException")


# Calls that are refused


def assert_gone(answer: Any) -> None:
    assert (answer.status, answer.body) == (410, b"")
    assert answer.headers["x-amzn-errortype"] == "GoneException"


@case("gone-after-close")
@methods
@spellings
async def test_closed_connection_gets_410(main: Gateway, method: str, spelling: str) -> None:
    url = path(main, await open_and_close(main), spelling)

    assert_gone(await main.request(method, url, make_body(method), signed=True))


@case("gone-after-delete")
async def test_deleted_connection_gets_410_at_once(main: Gateway) -> None:
    client = await main.open()
    url = path(main, await client.id())
    await main.request("DELETE", url, signed=True)

    assert_gone(await main.request("DELETE", url, signed=True))


@case("gone-never-existed")
@methods
async def test_connection_that_never_existed_gets_410(gateway: Gateway, method: str) -> None:
    answer = await gateway.request(method, path(gateway, NEVER_EXISTED), make_body(method), signed=True)

    assert_gone(answer)


@case("gone-exception")
@methods
async def test_boto3_raises_gone_exception(gateway: Gateway, method: str) -> None:
    data = {"Data": b"hello"} if method == "POST" else {}

    with pytest.raises(gateway.management.exceptions.GoneException) as error:
        await gateway.call(OPERATIONS[method], NEVER_EXISTED, **data)

    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 410


@case("connections-malformed-id-400")
@methods
async def test_malformed_id_gets_400(gateway: Gateway, method: str) -> None:
    data = {"Data": b"hello"} if method == "POST" else {}

    with pytest.raises(ClientError) as error:
        await gateway.call(OPERATIONS[method], "non-existing-id", **data)

    response: Any = error.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert response["Error"] == {
        "Code": "BadRequestException",
        "Message": "Invalid connectionId: non-existing-id",
    }


@case("connections-malformed-id-400")
async def test_function_gets_400_for_a_malformed_id(main: Gateway) -> None:
    client = await main.open()

    await client.do(["post", "non-existing-id", "x"], ["post", NEVER_EXISTED, "x"], ["report", "self"])

    results = json.loads(await client.receive())["results"]
    assert [(each["status"], each["Code"]) for each in results] == [
        (400, "BadRequestException"),
        (410, "GoneException"),
    ]


@case("connections-unsigned-403")
@methods
@spellings
async def test_call_without_a_signature_is_forbidden(gateway: Gateway, method: str, spelling: str) -> None:
    answer = await gateway.request(method, path(gateway, NEVER_EXISTED, spelling), make_body(method))

    assert (answer.status, answer.headers["x-amzn-errortype"]) == (403, "MissingAuthenticationTokenException")
    assert answer.json == {"message": "Missing Authentication Token"}


@case("connections-unsigned-403")
async def test_post_without_a_signature_does_not_reach_the_client(main: Gateway) -> None:
    client = await main.open()

    answer = await main.request("POST", path(main, await client.id()), b"forged")

    assert answer.status == 403
    await main.post(await client.id(), b"signed")
    assert await client.receive() == "signed"


@case("connections-wrong-stage-403")
@pytest.mark.parametrize("stage", ["no-such-stage/", ""], ids=["wrong stage", "no stage"])
async def test_call_with_the_wrong_stage_or_none_is_forbidden(gateway: Gateway, stage: str) -> None:
    answer = await gateway.request("POST", f"/{stage}%40connections/{quote(NEVER_EXISTED)}", b"hello", signed=True)

    assert (answer.status, answer.json) == (403, {"message": "Forbidden"})
    assert answer.headers["x-amzn-errortype"] == "ForbiddenException"


@case("connections-denied-403")
@pytest.mark.parametrize(("step", "method"), [("get", "GET"), ("delete", "DELETE")])
async def test_function_whose_role_does_not_allow_the_call_is_forbidden(main: Gateway, step: str, method: str) -> None:
    client = await main.open()

    await client.do([step, "self"], ["report", "self"], message={"action": "slow"})

    report = json.loads(await client.receive())
    context, (result,) = report["event"]["requestContext"], report["results"]
    where = f"{main.stage.region}:********\\d{{4}}:{context['apiId']}/{context['stage']}".replace("*", r"\*")
    assert result["status"] == 403
    assert re.fullmatch(
        r"User: arn:aws:sts::\d{12}:assumed-role/[^/]+/\S+ is not authorized to perform: "
        rf"execute-api:ManageConnections on resource: arn:aws:execute-api:{where}/{method}/@connections/{{connectionId}}",
        result["Message"],
    )


@case("post-over-limit-413")
async def test_larger_post_gets_413_and_the_connection_stays_open(main: Gateway) -> None:
    client = await main.open()

    with pytest.raises(main.management.exceptions.PayloadTooLargeException) as error:
        await main.post(await client.id(), b"x" * (MESSAGE + 1))

    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    await main.post(await client.id(), b"small")
    assert await client.receive() == "small"


@case("post-slow-client-429")
async def test_post_to_a_client_that_does_not_read_gets_429_in_the_end(main: Gateway) -> None:
    client = await main.open(options={"compression": None, "max_queue": 1})
    connection_id = await client.id()

    with pytest.raises(main.management.exceptions.LimitExceededException) as error:
        await post_until_refused(main, client, connection_id)

    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    client.vanish()


async def post_until_refused(gateway: Gateway, client: Client, connection_id: str) -> None:
    for _ in range(400):
        await gateway.post(connection_id, b"x" * MESSAGE)
    client.vanish()


@case("connections-other-method")
async def test_other_method_is_forbidden(gateway: Gateway) -> None:
    answer = await gateway.request("PUT", path(gateway, NEVER_EXISTED), b"hello", signed=True)

    assert (answer.status, answer.json) == (403, {"message": "Missing Authentication Token"})
