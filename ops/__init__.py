"""Operate a deployment: list its connections, push messages to them, and end them."""

from ops.connections import Connection, Counts, connections_of, kick, push
from ops.deployment import Deployment
from ops.errors import OpsError
from ops.users import User, disable, find_user

__all__ = [
    "Connection",
    "Counts",
    "Deployment",
    "OpsError",
    "User",
    "connections_of",
    "disable",
    "find_user",
    "kick",
    "push",
]
