"""Evaluates IAM policies, and records which grants are used.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

ELEMENTS = {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource"}
SERVICES = ("cognito-idp", "dynamodb", "execute-api")  # only calls of these services are seen locally
ADMINISTRATOR = "test"  # the access key, and the secret key, with which everything is allowed

logger = logging.getLogger(__name__)


class PolicyError(ValueError):
    """A policy or statement is malformed, or cannot be evaluated locally; the message says why."""


@dataclass(frozen=True)
class Statement:
    """A statement of a policy.

    Attributes:
        effect: `Allow` or `Deny`.
        actions: patterns of actions, compared without case, e.g. `dynamodb:*Item`.
        resources: patterns of ARNs; `*` stands for any characters including slashes and colons, `?` for one.
        not_action: the statement has `NotAction`, so it covers all other actions.
        not_resource: the statement has `NotResource`, so it covers all other resources.
    """

    effect: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    not_action: bool = False
    not_resource: bool = False

    @classmethod
    def parse(cls, statement: Any) -> Statement:
        """Parse a statement. Raise PolicyError if IAM would refuse it, or if it has a condition."""
        if not isinstance(statement, dict) or statement.get("Effect") not in ("Allow", "Deny"):
            raise PolicyError("Effect must be Allow or Deny")
        if unknown := statement.keys() - ELEMENTS:
            names = ascii(", ".join(sorted(unknown)))[1:-1]  # a function may have sent characters that disturb a log
            raise PolicyError(f"{names} cannot be evaluated locally")
        actions, not_action = parse_patterns(statement, "Action")
        resources, not_resource = parse_patterns(statement, "Resource")
        return cls(statement["Effect"], actions, resources, not_action, not_resource)

    def covers(self, action: str, resource: str) -> bool:
        matches_action = any(matches(each.lower(), action.lower()) for each in self.actions)
        matches_resource = any(matches(each, resource) for each in self.resources)
        return matches_action != self.not_action and matches_resource != self.not_resource


def parse_patterns(statement: dict[str, Any], element: str) -> tuple[tuple[str, ...], bool]:
    """Return the patterns of an element or of its `Not` form, and whether it has the `Not` form."""
    if (element in statement) == (f"Not{element}" in statement):
        raise PolicyError(f"it must have either {element} or Not{element}")
    name = element if element in statement else f"Not{element}"
    patterns = statement[name] if isinstance(statement[name], list) else [statement[name]]
    if not all(isinstance(each, str) for each in patterns):
        raise PolicyError(f"{name} must be a string or a list of strings")
    if any("${" in each for each in patterns):
        raise PolicyError(f"a policy variable in {name} cannot be evaluated locally")
    return tuple(patterns), name != element


def matches(pattern: str, value: str) -> bool:
    return fnmatchcase(value, pattern.replace("[", "[[]"))


def parse_policy(document: Any, services: Iterable[str] = ("*",)) -> tuple[Statement, ...]:
    """Return the statements of a policy document that may cover actions of these services. Ignore the others.

    Raises:
        PolicyError: the document is malformed, or a statement cannot be evaluated locally.
    """
    if not isinstance(document, dict) or "Statement" not in document:
        raise PolicyError("a policy document must have a Statement")
    statements = document["Statement"] if isinstance(document["Statement"], list) else [document["Statement"]]
    parsed = []
    for number, statement in enumerate(statements, 1):
        if may_cover(statement, services):
            try:
                parsed.append(Statement.parse(statement))
            except PolicyError as error:
                raise PolicyError(f"statement {number}: {error}") from error
    return tuple(parsed)


def may_cover(statement: Any, services: Iterable[str]) -> bool:
    """Return whether a statement may cover an action of one of these services; `*` is any service.

    True for a malformed statement, so that the parser sees it and refuses it.
    """
    if not isinstance(statement, dict):
        return True
    if isinstance(excluded := statement.get("NotAction"), list):
        return not all(f"{service}:*" in [str(each).lower() for each in excluded] for service in services)
    actions = statement.get("Action")
    named = [actions] if isinstance(actions, str) else actions
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        return True
    prefixes = [each.partition(":")[0].lower() for each in named]
    return any(service == "*" or matches(prefix, service) for prefix in prefixes for service in services)


def evaluate(statements: Iterable[Statement], action: str, resource: str) -> str | None:
    """Return `Deny` if a statement denies the action, else `Allow` if a statement allows it, else None."""
    effects = {statement.effect for statement in statements if statement.covers(action, resource)}
    return next((effect for effect in ("Deny", "Allow") if effect in effects), None)


@dataclass(frozen=True)
class Role:
    """An AWS::IAM::Role, with the statements of all its policies."""

    name: str
    statements: tuple[Statement, ...]


@dataclass(eq=False)
class Session:
    """A function's session of its role: the session's own credentials, and the grants that were used with them."""

    function: str
    role: Role
    arn: str
    access_key_id: str = field(default_factory=lambda: f"ASIA{secrets.token_hex(8).upper()}")
    secret_access_key: str = field(default_factory=lambda: secrets.token_urlsafe(30))
    session_token: str = field(default_factory=lambda: secrets.token_urlsafe(60))
    used: set[tuple[Statement, str]] = field(default_factory=set)

    def build_environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_SESSION_TOKEN": self.session_token,
        }


@dataclass(frozen=True)
class Denial:
    """A call that the caller's role does not allow.

    Attributes:
        explicit: whether a statement denies the call; otherwise no statement allows it.
    """

    session: Session
    action: str
    resource: str
    explicit: bool

    @property
    def message(self) -> str:
        """AWS's error message."""
        reason = (
            "with an explicit deny in an identity-based policy"
            if self.explicit
            else f"because no identity-based policy allows the {self.action} action"
        )
        return f"User: {self.session.arn} is not authorized to perform: {self.action} on resource: {self.resource} {reason}"

    @property
    def advice(self) -> str:
        """The change to the stack that would allow the call."""
        if self.explicit:
            return f"remove the Deny on {self.action} for {self.resource} from role {self.session.role.name}"
        statement = {"Effect": "Allow", "Action": self.action, "Resource": self.resource}
        return f"add to role {self.session.role.name} the statement {json.dumps(statement)}"


class UnknownAccessKeyError(Exception):
    """No session has the access key. The message is AWS's."""

    def __init__(self) -> None:
        super().__init__("The security token included in the request is invalid.")


class Iam:
    """Decides which calls a session may make. The administrator may make all calls; if not enforced, everybody may."""

    def __init__(self, *, enforced: bool = True) -> None:
        self.enforced = enforced
        self.sessions: dict[str, Session] = {}
        self.advice: dict[str, None] = {}  # missing grants and permissions, each once, in the order of their discovery

    def open_session(self, function: str, role: Role, arn: str) -> Session:
        session = Session(function, role, arn)
        self.sessions[session.access_key_id] = session
        return session

    def update_role(self, function_name: str, role: Role) -> None:
        """Replace the role in the sessions of a function. Their credentials stay valid."""
        for session in self.sessions.values():
            if session.arn.endswith(f"/{function_name}"):
                session.arn = session.arn.replace(f"/{session.role.name}/", f"/{role.name}/")
                session.role = role

    def authorize(self, access_key_id: str, action: str, resource: str, *, advised: str | None = None) -> Denial | None:
        """Return the denial of a call, or None if the call is allowed. Record the grants that the call uses.

        Args:
            access_key_id: the caller's access key.
            action: e.g. `dynamodb:PutItem`.
            resource: the ARN of the called resource.
            advised: the resource to name in the advice, e.g. with a wildcard instead of a connection's id.

        Raises:
            UnknownAccessKeyError: no session has the key, and it is not the administrator's.
        """
        if access_key_id == ADMINISTRATOR:
            return None
        session = self.sessions.get(access_key_id)
        if session is None:
            raise UnknownAccessKeyError
        covering = [statement for statement in session.role.statements if statement.covers(action, resource)]
        session.used |= {
            (statement, pattern)
            for statement in covering
            for pattern in statement.actions
            if statement.not_action or matches(pattern.lower(), action.lower())
        }
        effect = evaluate(covering, action, resource)
        if effect == "Allow" or not self.enforced:
            return None
        denial = Denial(session, action, advised or resource, explicit=effect == "Deny")
        self.advise(f"{session.function} may not {action}: {denial.advice}")
        return denial

    def advise(self, advice: str) -> None:
        """Record and log a change that the stack needs."""
        self.advice[advice] = None
        logger.warning("%s", advice)

    def unused_grants(self, services: Iterable[str]) -> Iterator[str]:
        """Yield the grants for these services that were never used, e.g. `websocket: dynamodb:DeleteItem on arn:…`."""
        for session in self.sessions.values():
            for statement in session.role.statements:
                if statement.effect == "Deny" or statement.not_action:
                    continue
                for pattern in statement.actions:
                    is_local = pattern.partition(":")[0].lower() in services
                    if is_local and (statement, pattern) not in session.used:
                        yield f"{session.function}: {pattern} on {', '.join(statement.resources)}"
