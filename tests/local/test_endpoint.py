"""The endpoint that functions call instead of AWS: boto3 calls the local AWS through it."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import boto3
import pytest
from aiohttp import ClientSession
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from local.aws.endpoint import AwsEndpoint
from local.aws.iam import ADMINISTRATOR, Iam, Role, Session, Statement
from local.aws.ministack import LocalAws
from tests.fixtures.network import Answer, LoopbackServer, Request, find_free_port

ACCOUNT = "us-east-1:000000000000"
ROWS = f"arn:aws:dynamodb:{ACCOUNT}:table/Rows"
ROOMS = f"arn:aws:dynamodb:{ACCOUNT}:table/Rooms"
POOL = f"arn:aws:cognito-idp:{ACCOUNT}:userpool/"
SESSION_ARN = "arn:aws:sts::000000000000:assumed-role/RoomsRole/Rooms"


@pytest.fixture(scope="module")
def aws(aws: LocalAws) -> LocalAws:
    """The local AWS with two tables, `Rows` and `Rooms`."""
    for name in ("Rows", "Rooms"):
        aws.client("dynamodb").create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
    return aws


Start = Callable[..., Awaitable["Caller"]]


class Caller:
    """A function that calls an endpoint with its own credentials."""

    def __init__(self, endpoint: AwsEndpoint, url: str, session: Session) -> None:
        self.endpoint = endpoint
        self.url = url
        self.session = session

    def client(self, service: str, **changes: Any) -> Any:
        """Create a client as a function does from its environment, but without retries."""
        credentials = {name.lower(): value for name, value in self.session.build_environment().items()}
        once = Config(retries={"total_max_attempts": 1}, signature_version=changes.pop("signature_version", None))
        options = {**credentials, "endpoint_url": self.url, "region_name": "us-east-1", **changes}
        return boto3.client(service, config=once, **options)

    async def call(self, service: str, operation: str, **parameters: Any) -> Any:
        return await asyncio.to_thread(getattr(self.client(service), operation), **parameters)


@pytest.fixture
async def start(aws: LocalAws) -> AsyncIterator[Start]:
    """Start endpoints in front of the local AWS, each for a function whose role has these statements."""
    started: list[AwsEndpoint] = []

    async def start_endpoint(
        *statements: Statement, enforced: bool = True, urls: dict[str, str] | None = None
    ) -> Caller:
        iam = Iam(enforced=enforced)
        endpoint = AwsEndpoint(iam, aws.urls if urls is None else urls)
        started.append(endpoint)
        session = iam.open_session("rooms", Role("RoomsRole", statements), SESSION_ARN)
        return Caller(endpoint, await endpoint.start(), session)

    yield start_endpoint
    await asyncio.gather(*(endpoint.stop() for endpoint in started))


def allow(action: str, *resources: str) -> Statement:
    return Statement("Allow", (action,), resources)


def row(id_: str, **attributes: str) -> dict[str, dict[str, str]]:
    return {name: {"S": value} for name, value in {"id": id_, **attributes}.items()}


async def get_stored(aws: LocalAws, id_: str) -> Any:
    """Return the item from the local AWS directly, from the table that has it."""
    dynamodb = aws.client("dynamodb")
    found = [await asyncio.to_thread(dynamodb.get_item, TableName=name, Key=row(id_)) for name in ("Rows", "Rooms")]
    return next((each["Item"] for each in found if "Item" in each), None)


def read_error(raised: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    """Return status and error code."""
    response = raised.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


async def test_allowed_call_is_passed_on(start: Start, aws: LocalAws) -> None:
    caller = await start(allow("dynamodb:PutItem", ROWS))

    answer = await caller.call("dynamodb", "put_item", TableName="Rows", Item=row("allowed", text="ひと"))

    assert answer["ResponseMetadata"]["RequestId"]
    assert await get_stored(aws, "allowed") == row("allowed", text="ひと")


async def test_large_item_is_written_and_read_unchanged(start: Start) -> None:
    caller = await start(allow("dynamodb:*Item", ROWS))
    item = row("large", text="x" * 390_000)

    await caller.call("dynamodb", "put_item", TableName="Rows", Item=item)
    found = await caller.call("dynamodb", "get_item", TableName="Rows", Key=row("large"))

    assert found["Item"] == item


@pytest.mark.parametrize(("count", "text"), [(1, "é" * 190_000), (4, "x" * 390_000)], ids=["escaped", "batch"])
async def test_request_may_be_as_large_as_dynamodb_takes_it(start: Start, aws: LocalAws, count: int, text: str) -> None:
    """400 KB an item, to which JSON adds, and 16 MB a batch.

    https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html
    """
    caller = await start(allow("dynamodb:BatchWriteItem", ROWS))
    puts = [{"PutRequest": {"Item": row(f"{text[0]}-{number}", text=text)}} for number in range(count)]

    await caller.call("dynamodb", "batch_write_item", RequestItems={"Rows": puts})

    assert await get_stored(aws, f"{text[0]}-{count - 1}") is not None


async def test_failure_of_the_service_arrives_as_its_own_exception(start: Start) -> None:
    caller = await start(allow("dynamodb:PutItem", "*"))
    dynamodb = caller.client("dynamodb")
    await caller.call("dynamodb", "put_item", TableName="Rows", Item=row("taken"))

    with pytest.raises(dynamodb.exceptions.ConditionalCheckFailedException) as failed:
        await asyncio.to_thread(
            dynamodb.put_item, TableName="Rows", Item=row("taken"), ConditionExpression="attribute_not_exists(id)"
        )
    with pytest.raises(dynamodb.exceptions.ResourceNotFoundException):
        await asyncio.to_thread(dynamodb.put_item, TableName="Unknown", Item=row("nowhere"))

    assert failed.value.response["Error"]["Message"] == "The conditional request failed"


async def test_refused_call_fails_as_on_aws_and_changes_nothing(start: Start, aws: LocalAws) -> None:
    caller = await start(allow("dynamodb:GetItem", ROWS), allow("dynamodb:PutItem", ROOMS))

    with pytest.raises(ClientError) as refused:
        await caller.call("dynamodb", "put_item", TableName="Rows", Item=row("refused"))

    assert read_error(refused) == (400, "AccessDeniedException")
    assert refused.value.response["Error"]["Message"] == (
        f"User: {SESSION_ARN} is not authorized to perform: dynamodb:PutItem on resource: {ROWS} "
        "because no identity-based policy allows the dynamodb:PutItem action"
    )
    assert await get_stored(aws, "refused") is None


async def test_call_of_two_tables_needs_both_grants_or_writes_nothing(start: Start, aws: LocalAws) -> None:
    caller = await start(allow("dynamodb:*", ROWS))
    puts = {name: [{"PutRequest": {"Item": row("half")}}] for name in ("Rows", "Rooms")}

    with pytest.raises(ClientError, match=f"dynamodb:BatchWriteItem on resource: {ROOMS}"):
        await caller.call("dynamodb", "batch_write_item", RequestItems=puts)

    assert await get_stored(aws, "half") is None


async def test_user_pool_is_called_by_its_grant(start: Start, aws: LocalAws) -> None:
    ours, other = await asyncio.to_thread(create_user_pools, aws)
    caller = await start(allow("cognito-idp:DescribeUserPool", POOL + ours))

    described = await caller.call("cognito-idp", "describe_user_pool", UserPoolId=ours)
    with pytest.raises(ClientError, match=f"cognito-idp:DescribeUserPool on resource: {POOL}{other}"):
        await caller.call("cognito-idp", "describe_user_pool", UserPoolId=other)

    assert described["UserPool"]["Id"] == ours


def create_user_pools(aws: LocalAws) -> list[str]:
    cognito = aws.client("cognito-idp")
    return [cognito.create_user_pool(PoolName=name)["UserPool"]["Id"] for name in ("ours", "other")]


# Callers


async def test_caller_with_an_unknown_access_key_is_refused(start: Start) -> None:
    caller = await start(allow("*", "*"))
    stranger = caller.client("dynamodb", aws_access_key_id="ASIA0000000000000000")

    with pytest.raises(ClientError, match="The security token included in the request is invalid") as refused:
        await asyncio.to_thread(stranger.list_tables)

    assert read_error(refused) == (400, "UnrecognizedClientException")


async def test_call_with_a_wrong_signature_is_refused(start: Start, aws: LocalAws) -> None:
    caller = await start(allow("*", "*"))
    wrong = caller.client("dynamodb", aws_secret_access_key="wrong")

    with pytest.raises(ClientError, match="The request signature we calculated does not match") as refused:
        await asyncio.to_thread(wrong.put_item, TableName="Rows", Item=row("wrong"))

    assert read_error(refused) == (400, "InvalidSignatureException")
    assert await get_stored(aws, "wrong") is None


async def test_administrator_may_call_everything(start: Start) -> None:
    caller = await start()
    administrator = caller.client("dynamodb", aws_access_key_id=ADMINISTRATOR, aws_secret_access_key=ADMINISTRATOR)

    assert {"Rooms", "Rows"} <= {*(await asyncio.to_thread(administrator.list_tables))["TableNames"]}


async def test_every_function_may_call_everything_where_iam_is_off(start: Start, aws: LocalAws) -> None:
    caller = await start(enforced=False)

    await caller.call("dynamodb", "put_item", TableName="Rows", Item=row("off"))

    assert await get_stored(aws, "off") == row("off")


async def test_keys_of_a_user_pool_are_public(start: Start, aws: LocalAws) -> None:
    """As on AWS, where JWKS are fetched without a signature."""
    caller = await start()
    user_pool, _ = await asyncio.to_thread(create_user_pools, aws)

    status, body = await get(f"{caller.url}/{user_pool}/.well-known/jwks.json")

    assert (status, {key["alg"] for key in json.loads(body)["keys"]}) == (200, {"RS256"})


async def test_call_that_needs_a_signature_is_refused_without(start: Start, aws: LocalAws) -> None:
    caller = await start(allow("*", "*"))
    anonymous = caller.client("dynamodb", signature_version=UNSIGNED)

    with pytest.raises(ClientError, match="MissingAuthenticationTokenException"):
        await asyncio.to_thread(anonymous.put_item, TableName="Rows", Item=row("anonymous"))

    assert await get_stored(aws, "anonymous") is None


async def test_sign_in_needs_no_signature(start: Start) -> None:
    """As on AWS, because users have no credentials before they sign in."""
    anonymous = (await start()).client("cognito-idp", signature_version=UNSIGNED)
    sign_in = partial(anonymous.initiate_auth, ClientId="1example23456789", AuthFlow="USER_PASSWORD_AUTH")

    with pytest.raises(anonymous.exceptions.ResourceNotFoundException, match="1example23456789"):
        await asyncio.to_thread(sign_in, AuthParameters={"USERNAME": "ada", "PASSWORD": "secret"})


async def get(url: str) -> tuple[int, bytes]:
    async with ClientSession() as session, session.get(url) as response:
        return response.status, await response.read()


# What is not run locally


async def test_service_that_the_template_does_not_use_is_named(start: Start) -> None:
    caller = await start(allow("*", "*"), urls={})

    with pytest.raises(
        ClientError, match="dynamodb is not run, because the template has no AWS::DynamoDB::Table"
    ) as missing:
        await caller.call("dynamodb", "list_tables")

    assert read_error(missing) == (501, "NotImplemented")


async def test_call_of_another_region_is_not_run(start: Start) -> None:
    elsewhere = (await start(allow("*", "*"))).client("dynamodb", region_name="eu-west-1")

    with pytest.raises(ClientError, match="dynamodb in eu-west-1 is not run locally: the template's region is us-east"):
        await asyncio.to_thread(elsewhere.list_tables)


async def test_call_that_cannot_be_evaluated_is_not_passed_on(start: Start) -> None:
    caller = await start(allow("*", "*"))

    with pytest.raises(ClientError, match="dynamodb:ExecuteStatement cannot be evaluated locally") as unknown:
        await caller.call("dynamodb", "execute_statement", Statement="SELECT * FROM Rows")

    assert read_error(unknown) == (501, "NotImplemented")


async def test_local_aws_that_does_not_answer_is_named(start: Start) -> None:
    caller = await start(allow("*", "*"), urls={"dynamodb": f"http://127.0.0.1:{find_free_port()}"})

    with pytest.raises(ClientError, match="the local dynamodb does not answer") as down:
        await caller.call("dynamodb", "list_tables")

    assert read_error(down) == (503, "ServiceUnavailable")


# The wire


class Compressing(LoopbackServer):
    """A DynamoDB that compresses its answers if the request accepts that."""

    def respond(self, request: Request) -> Answer:
        body = b'{"TableNames": ["Rows"]}'
        headers = {"Content-Type": "application/x-amz-json-1.0"}
        if "gzip" not in request.headers.get("Accept-Encoding", ""):
            return Answer(headers=headers, body=[body])
        return Answer(headers={**headers, "Content-Encoding": "gzip"}, body=[gzip.compress(body)])


async def test_answer_is_not_compressed(start: Start) -> None:
    with Compressing(Answer()) as dynamodb:
        caller = await start(allow("*", "*"), urls={"dynamodb": dynamodb.url})

        found = await caller.call("dynamodb", "list_tables")

    assert found["TableNames"] == ["Rows"]


async def test_proxy_of_this_machine_is_not_used(start: Start, aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{find_free_port()}")
    caller = await start()
    keys = f"{caller.url}/us-east-1_Example01/.well-known/jwks.json"

    listed = await asyncio.to_thread(aws.client("dynamodb").list_tables)
    status, _ = await get(keys)

    assert {"Rooms", "Rows"} <= {*listed["TableNames"]}
    assert status != 503


async def test_functions_credentials_stay_at_the_endpoint(start: Start) -> None:
    """The local AWS would not know a function's access key, because it knows its administrator only."""
    with LoopbackServer(Answer(headers={"Content-Type": "application/x-amz-json-1.0"}, body=[b"{}"])) as dynamodb:
        caller = await start(allow("*", "*"), urls={"dynamodb": dynamodb.url})

        await caller.call("dynamodb", "list_tables")

    (request,) = dynamodb.requests
    assert f"Credential={ADMINISTRATOR}/" in request.headers["Authorization"]
    assert [name for name in request.headers if name.lower() == "x-amz-security-token"] == []


async def test_nothing_listens_beyond_loopback(start: Start) -> None:
    caller = await start()

    addresses = [socket.getsockname()[0] for socket in caller.endpoint._server.sockets]

    assert [ipaddress.ip_address(address).is_loopback for address in addresses] == [True]
