"""Adds, finds and signs in the users of a local user pool."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from local.aws.clients import client
from local.errors import CommandError

if TYPE_CHECKING:
    from types_boto3_cognito_idp import CognitoIdentityProviderClient
    from types_boto3_cognito_idp.type_defs import AttributeTypeTypeDef, UserPoolClientTypeTypeDef

EMAIL = re.compile(r"[^\s@\"]+@[^\s@\"]+")
GROUP = re.compile(r"\S{1,128}")


class Users:
    """The users of a local user pool. The administrator adds them; they sign in by SRP, as in a browser."""

    def __init__(self, cognito_url: str, user_pool_id: str, app_client_id: str | None) -> None:
        region = user_pool_id.partition("_")[0]
        self.cognito: CognitoIdentityProviderClient = client("cognito-idp", cognito_url, region)
        self.user_pool_id = user_pool_id
        self.app_client_id = app_client_id

    def add(self, email: str, password: str, groups: Iterable[str] = ()) -> list[str]:
        """Create a user who can sign in at once, and add it to these groups; return the groups that had to be created.

        Raises:
            CommandError: the user pool refuses the user, who then does not exist.
        """
        with raise_command_errors(f"{email} cannot be added"):
            name = self._choose_name(email)
            attributes: list[AttributeTypeTypeDef] = [
                {"Name": "email", "Value": email},
                {"Name": "email_verified", "Value": "true"},
            ]
            self.cognito.admin_create_user(
                UserPoolId=self.user_pool_id,
                Username=name,
                UserAttributes=attributes,
                TemporaryPassword=password,
                MessageAction="SUPPRESS",
            )
            user = {"UserPoolId": self.user_pool_id, "Username": name}
            try:
                self.cognito.admin_set_user_password(**user, Password=password, Permanent=True)
                return [group for group in groups if self._add_to_group(user, group)]
            except ClientError:
                self.cognito.admin_delete_user(**user)
                raise

    def _choose_name(self, email: str) -> str:
        """Return a user name with which the user can sign in by email address."""
        user_pool = self.cognito.describe_user_pool(UserPoolId=self.user_pool_id)["UserPool"]
        sign_in_by = user_pool.get("UsernameAttributes") or ["email"]
        if "email" not in sign_in_by:
            raise CommandError(
                f"{email} cannot be added: users of this user pool sign in by {' or '.join(sign_in_by)}, "
                "see its UsernameAttributes"
            )
        # In a user pool with email as an alias, a user name must not look like an address.
        return email.replace("@", "-at-") if "email" in user_pool.get("AliasAttributes", ()) else email

    def _add_to_group(self, user: dict[str, str], group: str) -> bool:
        """Add a user to a group; return whether the group had to be created."""
        created = False
        with suppress(self.cognito.exceptions.GroupExistsException):
            self.cognito.create_group(UserPoolId=self.user_pool_id, GroupName=group)
            created = True
        self.cognito.admin_add_user_to_group(**user, GroupName=group)
        return created

    def find(self, email: str) -> str | None:
        """Find a user by address, ignoring case; return the address as it is stored, None without such a user."""
        with raise_command_errors("the users cannot be listed"):
            found = self.cognito.list_users(UserPoolId=self.user_pool_id, Filter=f'email = "{email}"')["Users"]
        attributes = (each for user in found for each in user["Attributes"])
        addresses = (str(each["Value"]) for each in attributes if each["Name"] == "email")
        return next((address for address in addresses if address.lower() == email.lower()), None)

    @cached_property
    def app_client(self) -> UserPoolClientTypeTypeDef:
        """The app client by which users sign in.

        Raises:
            CommandError: there is no app client, or it does not allow sign-in by SRP.
        """
        if self.app_client_id is None:
            raise CommandError("the template has no app client (AWS::Cognito::UserPoolClient), so users cannot sign in")
        app_client = self.cognito.describe_user_pool_client(UserPoolId=self.user_pool_id, ClientId=self.app_client_id)[
            "UserPoolClient"
        ]
        flows = app_client.get("ExplicitAuthFlows", [])
        if flows and not {"ALLOW_USER_SRP_AUTH", "USER_SRP_AUTH"} & {*flows}:
            raise CommandError(
                f"app client {self.app_client_id} does not let users sign in by SRP: "
                "add ALLOW_USER_SRP_AUTH to its ExplicitAuthFlows"
            )
        return app_client

    def get_id_token(self, email: str, password: str, app_client_id: str | None = None) -> str:
        """Sign in by the Secure Remote Password protocol; return the ID token. Use the given app client, if any.

        Raises:
            CommandError: the user cannot sign in.
        """
        from pycognito.aws_srp import AWSSRP  # noqa: PLC0415 - `make up` need not wait for its import
        from pycognito.exceptions import WarrantException  # noqa: PLC0415

        sign_in = AWSSRP(
            username=email,
            password=password,
            pool_id=self.user_pool_id,
            client_id=app_client_id or self.app_client["ClientId"],
            client_secret=None if app_client_id else self.app_client.get("ClientSecret"),
            client=self.cognito,
        )
        with raise_command_errors(f"{email} cannot sign in"):
            try:
                return str(sign_in.authenticate_user()["AuthenticationResult"]["IdToken"])
            except (WarrantException, KeyError, NotImplementedError) as error:
                raise CommandError(f"{email} cannot sign in: the user pool asks for more than a password") from error


@contextmanager
def raise_command_errors(what: str) -> Iterator[None]:
    """Turn an error of AWS into a CommandError: what failed, and AWS's message."""
    try:
        yield
    except ClientError as error:
        raise CommandError(f"{what}: {error.response['Error']['Message']}") from error


def make_password() -> str:
    """Return a random password that every password policy accepts: 100 characters of all kinds."""
    return f"Aa1!{secrets.token_urlsafe(72)}"
