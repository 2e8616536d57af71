"""Users of different user pools, and the commands that add users, print tokens and post to connections."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local import paths, state
from local.aws.ministack import LocalAws
from local.aws.users import Users, make_password
from local.commands import add_user, find_connection, get_token, post
from local.errors import CommandError
from local.state import State
from tests.fixtures.gateway import Gateway, receive
from tests.fixtures.network import find_free_port
from tests.fixtures.tokens import read_claims

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning:pycognito")

PORT = 4510
Properties = dict[str, Any]
BY_EMAIL: Properties = {"UsernameAttributes": ["email"]}
BY_DEFAULT: Properties = {}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths, "STATE", tmp_path)


Up = Callable[..., Users]


@pytest.fixture
def up(aws: LocalAws) -> Up:
    """Create a user pool with an app client, and the state file of a `make up` that has them."""

    def create_users(user_pool: Properties = BY_EMAIL, app_client: Properties | None = BY_DEFAULT) -> Users:
        cognito = aws.client("cognito-idp")
        pool_id = cognito.create_user_pool(PoolName="Users", **user_pool)["UserPool"]["Id"]
        client_id = None
        if app_client is not None:
            made = cognito.create_user_pool_client(UserPoolId=pool_id, ClientName="Page", **app_client)
            client_id = made["UserPoolClient"]["ClientId"]
        urls = {"cognito_url": aws.url, "dynamodb_url": aws.url, "region": "us-east-1"}
        facts = {**urls, "user_pool_id": pool_id, "app_client_id": client_id, "ready": True}
        state.save(PORT, State.of_this_process({"--port": PORT}, **facts))
        return Users(aws.url, pool_id, client_id)

    return create_users


def get_error(command: Callable[..., str], *arguments: Any) -> str:
    with pytest.raises(CommandError) as error:
        command(PORT, *arguments)
    return str(error.value)


# Users and their tokens


@pytest.mark.parametrize(
    ("user_pool", "app_client"),
    [
        (BY_EMAIL, {}),
        (BY_EMAIL, {"ExplicitAuthFlows": ["ALLOW_USER_SRP_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"]}),
        (BY_EMAIL, {"GenerateSecret": True}),
        ({**BY_EMAIL, "Policies": {"PasswordPolicy": {"MinimumLength": 99}}}, {}),
        ({**BY_EMAIL, "UsernameConfiguration": {"CaseSensitive": True}}, {}),
        ({"UsernameAttributes": ["phone_number", "email"]}, {}),
        ({"AliasAttributes": ["email"]}, {}),
        ({}, {}),
    ],
    ids=["by email", "by SRP", "secret", "long passwords", "case", "by phone or email", "by alias", "by name"],
)
def test_user_who_was_added_gets_a_token(up: Up, user_pool: Properties, app_client: Properties) -> None:
    up(user_pool, app_client)

    told = add_user(PORT, "bob@example.com", ["staff", "admins"])

    assert told == (
        "bob@example.com can sign in, in the groups staff and admins (new: staff and admins). "
        "Token: make -s token EMAIL=bob@example.com"
    )
    decoded = read_claims(get_token(PORT, "bob@example.com"))
    assert decoded["email"] == "bob@example.com"
    assert {*decoded["cognito:groups"]} == {"staff", "admins"}


def test_group_that_exists_is_not_said_to_be_new(up: Up) -> None:
    users = up()
    users.cognito.create_group(UserPoolId=users.user_pool_id, GroupName="staff")

    told = add_user(PORT, "bob@example.com", ["staff"])

    assert told.startswith("bob@example.com can sign in, in the group staff. Token: ")


def test_address_is_compared_without_case(up: Up) -> None:
    up()
    add_user(PORT, "Bob@Example.com", [])

    assert read_claims(get_token(PORT, "BOB@example.com"))["email"] == "bob@example.com"
    there_is = "there is a user bob@example.com already, its token is `make -s token EMAIL=bob@example.com`"
    assert get_error(add_user, "bob@EXAMPLE.com", []) == there_is


def test_user_who_signed_up_on_the_page_is_refused_by_name(up: Up) -> None:
    users = up()
    assert users.app_client_id
    users.cognito.sign_up(ClientId=users.app_client_id, Username="Carol@example.com", Password=make_password())
    attributes = [{"Name": "email", "Value": "Carol@example.com"}]
    assert users.find("carol@example.com") == attributes[0]["Value"]

    unknown = "the password of Carol@example.com is unknown, because the user signed up on the page: sign in there, "
    assert get_error(get_token, "carol@example.com") == f"{unknown}or add another user with `make user EMAIL=…`"
    there_is = "there is a user Carol@example.com already, who signed up on the page: take another address"
    assert get_error(add_user, "carol@example.com", []) == there_is


def test_error_of_an_unknown_user_has_the_command_that_adds_one(up: Up) -> None:
    up()

    there_is = "there is no user bob@example.com: add one with `make user EMAIL=bob@example.com`"
    assert get_error(get_token, "bob@example.com") == there_is


def test_commands_in_error_messages_have_the_port(up: Up) -> None:
    users = up()
    other = dataclasses.replace(state.find_running(PORT), ports={"--port": 4600})
    state.save(4600, other)

    told = add_user(4600, "bob@example.com", [])
    with pytest.raises(CommandError) as error:
        get_token(4600, "carol@example.com")

    assert told.endswith("Token: make -s token EMAIL=bob@example.com LOCAL_FLAGS=--port=4600")
    assert str(error.value).endswith("`make user EMAIL=carol@example.com LOCAL_FLAGS=--port=4600`")
    assert users.find("bob@example.com") == "bob@example.com"


def test_error_names_a_user_whose_password_was_changed_on_the_page(up: Up) -> None:
    users = up()
    add_user(PORT, "bob@example.com", [])
    users.cognito.admin_set_user_password(
        UserPoolId=users.user_pool_id, Username="bob@example.com", Password=make_password(), Permanent=True
    )

    assert get_error(get_token, "bob@example.com") == "bob@example.com cannot sign in: Incorrect username or password."


@pytest.mark.parametrize("email", ["", "bob", "bob@", "@example.com", "b b@example.com", 'b"@example.com', "a@b@c"])
@pytest.mark.parametrize("command", [get_token, lambda port, email: add_user(port, email, [])])
def test_malformed_address_is_refused(command: Callable[..., str], email: str) -> None:
    assert get_error(command, email) == f"EMAIL must be an email address such as bob@example.com, it is {email!r}"


@pytest.mark.parametrize("group", ["", "two words", "g" * 129])
def test_malformed_group_is_refused(up: Up, group: str) -> None:
    users = up()

    rule = f"a group's name has 1 to 128 characters without spaces, it is {group!r}"
    assert get_error(add_user, "bob@example.com", [group]) == rule
    assert users.find("bob@example.com") is None


@pytest.mark.parametrize(
    ("user_pool", "reason"),
    [
        (
            {"UsernameAttributes": ["phone_number"]},
            "users of this user pool sign in by phone_number, see its UsernameAttributes",
        ),
        ({**BY_EMAIL, "Policies": {"PasswordPolicy": {"MinimumLength": 101}}}, None),
    ],
    ids=["by phone", "impossible passwords"],
)
def test_error_says_why_the_user_pool_refuses_the_user(up: Up, user_pool: Properties, reason: str | None) -> None:
    users = up(user_pool)

    told = get_error(add_user, "bob@example.com", [])

    assert told.startswith("bob@example.com cannot be added: ")
    assert reason is None or told.endswith(reason)
    assert users.find("bob@example.com") is None
    assert state.find_running(PORT).users == {}


def test_user_is_deleted_again_if_a_part_of_adding_it_fails(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    users = up()

    def fail(self: Users, user: Properties, group: str) -> bool:
        return bool(self.cognito.get_group(UserPoolId=self.user_pool_id, GroupName="no such group"))

    monkeypatch.setattr(Users, "_add_to_group", fail)

    assert get_error(add_user, "bob@example.com", ["staff"]).startswith("bob@example.com cannot be added: ")
    assert users.find("bob@example.com") is None


@pytest.mark.parametrize(
    ("app_client", "reason"),
    [
        (None, "the template has no app client (AWS::Cognito::UserPoolClient), so users cannot sign in"),
        (
            {"ExplicitAuthFlows": ["ALLOW_USER_PASSWORD_AUTH"]},
            "app client {id} does not let users sign in by SRP: add ALLOW_USER_SRP_AUTH to its ExplicitAuthFlows",
        ),
    ],
    ids=["none", "without SRP"],
)
def test_error_names_an_app_client_that_does_not_allow_sign_in(
    up: Up, app_client: Properties | None, reason: str
) -> None:
    users = up(BY_EMAIL, app_client)
    add_user(PORT, "bob@example.com", [])

    assert get_error(get_token, "bob@example.com") == reason.format(id=users.app_client_id)


@pytest.mark.parametrize("command", [get_token, lambda port, email: add_user(port, email, [])])
def test_template_without_a_user_pool_has_no_users(command: Callable[..., str]) -> None:
    state.save(PORT, State.of_this_process({"--port": PORT}, ready=True))

    there_are = "the template has no user pool (AWS::Cognito::UserPool), so there are no users"
    assert get_error(command, "bob@example.com") == there_are


# Connections


@pytest.fixture
def table(aws: LocalAws) -> str:
    """A table with the key `id`."""
    name = f"table-{find_free_port()}"
    aws.client("dynamodb").create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    facts = {"dynamodb_url": aws.url, "region": "us-east-1", "table_name": name, "ready": True}
    state.save(PORT, State.of_this_process({"--port": PORT}, **facts))
    return name


def put(aws: LocalAws, table: str, **row: str | int) -> None:
    typed = {name: {"S": value} if isinstance(value, str) else {"N": str(value)} for name, value in row.items()}
    aws.client("dynamodb").put_item(TableName=table, Item={"id": {"S": str(row)}, **typed})


def test_newest_connection_is_found(aws: LocalAws, table: str) -> None:
    later = 2**40
    put(aws, table, connectionId="old", connectedAt=1, removedAt=later + 1)
    put(aws, table, connectionId="new", connectedAt=2, removedAt=later)
    put(aws, table, connectionId="expired", connectedAt=3, removedAt=4)

    assert find_connection(PORT) == "new"


def test_connection_without_times_is_found_too(aws: LocalAws, table: str) -> None:
    put(aws, table, connectionId="only")

    assert find_connection(PORT) == "only"


def test_expired_rows_are_no_open_connections(aws: LocalAws, table: str) -> None:
    assert get_error(find_connection) == "no connection is open: run the wscat line first"
    put(aws, table, connectionId="expired", removedAt=4)
    assert get_error(find_connection) == "no connection is open: run the wscat line first"


def test_table_without_connection_ids_is_an_error(aws: LocalAws, table: str) -> None:
    put(aws, table, socket="L0SM9cOFvHcCIhw=")

    no_id = f"the rows of table {table} have no connectionId, so the open connections are unknown"
    assert get_error(find_connection) == f"{no_id}: pass a connection id, `make post CONNECTION=…`"


def test_template_without_a_table_is_an_error() -> None:
    state.save(PORT, State.of_this_process({"--port": PORT}, ready=True))

    no_table = "the template has no table, so the open connections are unknown"
    assert get_error(find_connection) == f"{no_table}: pass a connection id, `make post CONNECTION=…`"


# Posting


@pytest.fixture
def callback(gateway: Gateway) -> None:
    """A `make up` with this gateway."""
    url = f"http://127.0.0.1:{gateway.port}/prod"
    state.save(PORT, State.of_this_process({"--port": PORT}, ready=True, callback_url=url, region="us-east-1"))


async def test_posted_message_is_reported_with_its_connection(gateway: Gateway, callback: None) -> None:
    peer, connection_id = await gateway.connect_with_id()

    told = await asyncio.to_thread(post, PORT, "héllo", connection_id)

    assert await receive(peer) == "héllo"
    assert told == f"posted 6 bytes to connection {connection_id}"


async def test_gone_connection_is_an_error(gateway: Gateway, callback: None) -> None:
    peer, connection_id = await gateway.connect_with_id()
    await peer.close()
    await gateway.wait_for_disconnect()

    told = await asyncio.to_thread(get_error, post, "hello", connection_id)

    assert told == f"connection {connection_id} has gone (410): it is closed, or still opening"


@pytest.mark.parametrize(
    ("message", "connection_id", "status"),
    [("a" * (128 * 1024 + 1), None, 413), ("hello", "nonsense", 400)],
    ids=["too large", "malformed id"],
)
async def test_error_of_any_other_refusal_has_its_status(
    gateway: Gateway, callback: None, message: str, connection_id: str | None, status: int
) -> None:
    _, open_id = await gateway.connect_with_id()
    to = connection_id or open_id

    told = await asyncio.to_thread(get_error, post, message, to)

    assert told.startswith(f"connection {to} did not get the message ({status}): ")
    assert len(told.splitlines()) == 1
