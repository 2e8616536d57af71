"""Commands for a running `make up`. Each returns the text that it prints."""

from __future__ import annotations

import argparse
import time
from shlex import quote
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as EndpointError

from local import state
from local.aws.clients import client
from local.aws.users import EMAIL, GROUP, Users, make_password
from local.errors import CommandError
from local.state import State

if TYPE_CHECKING:
    from types_boto3_apigatewaymanagementapi import ApiGatewayManagementApiClient
    from types_boto3_dynamodb import DynamoDBClient

USER = "ada@example.com"  # the user that `make up` adds


def run_command(arguments: argparse.Namespace) -> str:
    """Run a command; return the text to print.

    Raises:
        CommandError: the command cannot be carried out.
    """
    try:
        match arguments.command:
            case "token":
                return get_token(arguments.port, arguments.email or USER)
            case "user":
                return add_user(arguments.port, arguments.email, arguments.group)
            case "post":
                return post(arguments.port, arguments.message, arguments.connection)
            case _:
                return find_connection(arguments.port)
    except (EndpointError, HTTPClientError) as error:
        raise CommandError(
            f"a server of `make up` does not answer; stop `make up` and start it again: {error}"
        ) from error


def get_token(port: int, email: str) -> str:
    """Return an ID token of a user that `make up` or `make user` has added.

    Raises:
        CommandError: the user does not exist, the password is not in the state file, or the user cannot sign in.
    """
    email, flags = check_email(email), state.write_flags(port)
    running = state.find_running(port)
    users = open_user_pool(running)
    known = running.users.get(email)
    found = users.find(email)
    if found is None:
        raise CommandError(f"there is no user {email}: add one with `make user EMAIL={quote(email)}{flags}`")
    if known is None:
        raise CommandError(
            f"the password of {found} is unknown, because the user signed up on the page: sign in there, "
            f"or add another user with `make user EMAIL=…{flags}`"
        )
    return users.get_id_token(email, known)


def add_user(port: int, email: str, groups: list[str]) -> str:
    """Add a user, and keep the password in the state file.

    Raises:
        CommandError: the address is taken, or the user pool refuses the user.
    """
    email, flags = check_email(email), state.write_flags(port)
    groups = list(dict.fromkeys(groups))
    for group in groups:
        if not GROUP.fullmatch(group):
            raise CommandError(f"a group's name has 1 to 128 characters without spaces, it is {group!r}")
    with state.update_running(port) as running:
        users = open_user_pool(running)
        if found := users.find(email):
            if email in running.users:
                raise CommandError(
                    f"there is a user {found} already, its token is `make -s token EMAIL={quote(email)}{flags}`"
                )
            raise CommandError(f"there is a user {found} already, who signed up on the page: take another address")
        # Save the password first: if this command is killed, it must not leave a user with an unknown password.
        running.users[email] = make_password()
        state.write(port, running)
        try:
            created = users.add(email, running.users[email], groups)
        except BaseException:
            del running.users[email]
            raise
    member = f", in the group{'s' if groups[1:] else ''} {' and '.join(groups)}" if groups else ""
    new = f" (new: {' and '.join(created)})" if created else ""
    return f"{email} can sign in{member}{new}. Token: make -s token EMAIL={quote(email)}{flags}"


def find_connection(port: int) -> str:
    """Return the id of the newest connection in the table.

    Raises:
        CommandError: no connection is in the table, or the rows have no connection ids.
    """
    running = state.find_running(port)
    if not running.table_name:
        raise CommandError(
            "the template has no table, so the open connections are unknown: pass a connection id, `make post CONNECTION=…`"
        )
    dynamodb: DynamoDBClient = client("dynamodb", running.dynamodb_url, running.region)
    pages = dynamodb.get_paginator("scan").paginate(TableName=running.table_name)
    rows = [row for page in pages for row in page["Items"]]
    if rows and not any("connectionId" in row for row in rows):
        raise CommandError(
            f"the rows of table {running.table_name} have no connectionId, so the open connections are unknown: "
            "pass a connection id, `make post CONNECTION=…`"
        )
    connected = [row for row in rows if "connectionId" in row and not is_expired(row)]
    if not connected:
        raise CommandError("no connection is open: run the wscat line first")
    newest = max(connected, key=lambda row: (read_number(row, "connectedAt"), read_number(row, "removedAt")))
    return str(next(iter(newest["connectionId"].values())))


def post(port: int, message: str, connection_id: str | None) -> str:
    """Post a message to a connection, by default to the newest one, by `@connections`.

    Raises:
        CommandError: `@connections` refuses the post. The message has the status.
    """
    if not message:
        raise CommandError("MESSAGE is missing: make -s post MESSAGE='hello'")
    running = state.find_running(port)
    connection_id = connection_id or find_connection(port)
    management: ApiGatewayManagementApiClient = client("apigatewaymanagementapi", running.callback_url, running.region)
    data = message.encode(errors="surrogateescape")
    try:
        management.post_to_connection(ConnectionId=connection_id, Data=data)
    except management.exceptions.GoneException as error:
        raise CommandError(f"connection {connection_id} has gone (410): it is closed, or still opening") from error
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        text = error.response["Error"]["Message"] or error.response["Error"]["Code"]
        raise CommandError(f"connection {connection_id} did not get the message ({status}): {text}") from error
    return f"posted {len(data)} bytes to connection {connection_id}"


def check_email(text: str) -> str:
    """Return the address in lower case, because Cognito treats Ana@… and ana@… as one user. Raise CommandError if invalid."""
    if not EMAIL.fullmatch(text):
        raise CommandError(f"EMAIL must be an email address such as bob@example.com, it is {text!r}")
    return text.lower()


def open_user_pool(running: State) -> Users:
    if not running.user_pool_id:
        raise CommandError("the template has no user pool (AWS::Cognito::UserPool), so there are no users")
    return Users(running.cognito_url, running.user_pool_id, running.app_client_id)


def is_expired(row: dict[str, Any]) -> bool:
    return "removedAt" in row and read_number(row, "removedAt") <= time.time()


def read_number(row: dict[str, Any], name: str) -> int:
    return int(row.get(name, {}).get("N", 0))
