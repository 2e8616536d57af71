"""Find and disable users of the user pool."""

from __future__ import annotations

import time
from typing import NamedTuple

from ops.deployment import Deployment
from ops.errors import OpsError, call_with_retries

ID_TOKEN_SECONDS = 3600  # how long the stack's app client makes ID tokens valid


class User(NamedTuple):
    """A user of the user pool.

    Attributes:
        id: the `sub` of the user's tokens, which is `userId` in the connection table.
        name: the user's name in the user pool.
    """

    id: str
    name: str


def find_user(deployment: Deployment, sub_or_email: str) -> User:
    """Return the user with this `sub` or e-mail address.

    Raises:
        OpsError: there is no such user, or more than one.
    """
    if not deployment.user_pool_id:
        raise OpsError(f"user {sub_or_email} cannot be looked up without a user pool: pass --user-pool")
    attribute = "email" if "@" in sub_or_email else "sub"
    value = sub_or_email.replace("\\", "\\\\").replace('"', '\\"')
    found = call_with_retries(
        deployment.cognito.list_users, UserPoolId=deployment.user_pool_id, Filter=f'{attribute} = "{value}"'
    )["Users"]
    subs = [{each["Name"]: each["Value"] for each in user["Attributes"]}["sub"] for user in found]
    if not found:
        rule = "upper and lower case count" if attribute == "email" else "pass the sub or the e-mail address"
        raise OpsError(f"user pool {deployment.user_pool_id} has no user whose {attribute} is {sub_or_email}: {rule}")
    if len(found) > 1:
        raise OpsError(f"{len(found)} users have the e-mail address {sub_or_email}: pass one of {', '.join(subs)}")
    return User(subs[0], found[0]["Username"])


def disable(deployment: Deployment, user: User) -> int:
    """Disable a user, so that the user cannot sign in or refresh a token.

    Returns:
        The Unix time until which an ID token that was already issued still opens connections.
    """
    call_with_retries(deployment.cognito.admin_disable_user, UserPoolId=deployment.user_pool_id, Username=user.name)
    return int(time.time()) + ID_TOKEN_SECONDS
