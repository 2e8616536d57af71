"""Identity and access management: evaluates policy statements, and keeps account of who used which grant.

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
ADMINISTRATOR = "test"  # the access key of whoever sits at the desk

logger = logging.getLogger(__name__)


class PolicyError(ValueError):
    """A statement that is not one, or has an element that cannot be evaluated here; the message names it."""


@dataclass(frozen=True)
class Statement:
    """One statement of a policy; where it has `NotAction` or `NotResource`, that is `all_but`.

    Attributes:
        effect: `Allow` or `Deny`.
        actions: patterns, compared without case, e.g. `dynamodb:*Item`.
        resources: patterns of ARNs; `*` is any characters, slashes and colons included, `?` is one.
    """

    effect: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    all_actions_but: bool = False
    all_resources_but: bool = False

    @classmethod
    def parse(cls, statement: Any) -> Statement:
        """PolicyError for what IAM refuses, and for conditions, which cannot be evaluated here."""
        if not isinstance(statement, dict) or statement.get("Effect") not in ("Allow", "Deny"):
            raise PolicyError("a statement needs an Effect, Allow or Deny")
        if unknown := statement.keys() - ELEMENTS:
            raise PolicyError(f"{', '.join(sorted(unknown))} of a statement cannot be evaluated locally")
        actions, all_actions_but = either(statement, "Action")
        resources, all_resources_but = either(statement, "Resource")
        return cls(statement["Effect"], actions, resources, all_actions_but, all_resources_but)

    def covers(self, action: str, resource: str) -> bool:
        matches_action = any(matches(each.lower(), action.lower()) for each in self.actions)
        matches_resource = any(matches(each, resource) for each in self.resources)
        return matches_action != self.all_actions_but and matches_resource != self.all_resources_but


def either(statement: dict[str, Any], element: str) -> tuple[tuple[str, ...], bool]:
    """The patterns of an element or of its `Not` form, and whether it is that."""
    if (element in statement) == (f"Not{element}" in statement):
        raise PolicyError(f"a statement needs either {element} or Not{element}")
    name = element if element in statement else f"Not{element}"
    patterns = statement[name] if isinstance(statement[name], list) else [statement[name]]
    if not all(isinstance(each, str) for each in patterns):
        raise PolicyError(f"{name} must be a string or a list of them")
    if any("${" in each for each in patterns):
        raise PolicyError(f"a policy variable in {name} cannot be evaluated locally")
    return tuple(patterns), name != element


def matches(pattern: str, value: str) -> bool:
    return fnmatchcase(value, pattern.replace("[", "[[]"))


def parse_policy(document: Any) -> tuple[Statement, ...]:
    """PolicyError if it is no policy document."""
    if not isinstance(document, dict) or "Statement" not in document:
        raise PolicyError("a policy document needs a Statement")
    statements = document["Statement"]
    return tuple(Statement.parse(each) for each in (statements if isinstance(statements, list) else [statements]))


def effect(statements: Iterable[Statement], action: str, resource: str) -> str | None:
    """`Deny` if any statement that covers the action denies it, else `Allow` if one does, else None."""
    return verdict(each for each in statements if each.covers(action, resource))


def verdict(covering: Iterable[Statement]) -> str | None:
    effects = {statement.effect for statement in covering}
    return next((each for each in ("Deny", "Allow") if each in effects), None)


@dataclass(frozen=True)
class Role:
    """An AWS::IAM::Role with what its policies say."""

    name: str
    statements: tuple[Statement, ...]


@dataclass(eq=False)
class Session:
    """A function as IAM sees it: its role, and the credentials that are its alone."""

    function: str
    role: Role
    arn: str
    access_key_id: str = field(default_factory=lambda: f"ASIA{secrets.token_hex(8).upper()}")
    secret_access_key: str = field(default_factory=lambda: secrets.token_urlsafe(30))
    session_token: str = field(default_factory=lambda: secrets.token_urlsafe(60))
    used: set[tuple[Statement, str]] = field(default_factory=set)

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_SESSION_TOKEN": self.session_token,
        }


@dataclass(frozen=True)
class Refused:
    """A call that its caller's role does not allow."""

    session: Session
    action: str
    resource: str
    explicit: bool

    @property
    def message(self) -> str:
        """As AWS words it."""
        reason = (
            "with an explicit deny in an identity-based policy"
            if self.explicit
            else f"because no identity-based policy allows the {self.action} action"
        )
        return f"User: {self.session.arn} is not authorized to perform: {self.action} on resource: {self.resource} {reason}"

    @property
    def advice(self) -> str:
        """What to change in the stack."""
        if self.explicit:
            return f"remove the Deny on {self.action} for {self.resource} from role {self.session.role.name}"
        statement = {"Effect": "Allow", "Action": self.action, "Resource": self.resource}
        return f"add to role {self.session.role.name} the statement {json.dumps(statement)}"


class UnknownAccessKeyError(Exception):
    """Signed by nobody that IAM knows; the message is AWS's."""

    def __init__(self) -> None:
        super().__init__("The security token included in the request is invalid.")


class Iam:
    """Who may do what. Without enforcement everybody may do everything, as does the administrator always."""

    def __init__(self, *, enforced: bool = True) -> None:
        self.enforced = enforced
        self.sessions: dict[str, Session] = {}
        self.advice: dict[str, None] = {}  # what to change in the stack, each once and in turn

    def open_session(self, function: str, role: Role, arn: str) -> Session:
        session = Session(function, role, arn)
        self.sessions[session.access_key_id] = session
        return session

    def authorize(
        self, access_key_id: str, action: str, resource: str, *, advised: str | None = None
    ) -> Refused | None:
        """The refusal of this call, or None.

        `advised` is the resource to recommend in place of this one, e.g. with a wildcard for the connection id.

        Raises:
            UnknownAccessKeyError: no session's and not the administrator's.
        """
        if access_key_id == ADMINISTRATOR:
            return None
        session = self.sessions.get(access_key_id)
        if session is None:
            raise UnknownAccessKeyError
        covering = [each for each in session.role.statements if each.covers(action, resource)]
        session.used |= {
            (each, pattern)
            for each in covering
            for pattern in each.actions
            if each.all_actions_but or matches(pattern.lower(), action.lower())
        }
        outcome = verdict(covering)
        if outcome == "Allow" or not self.enforced:
            return None
        refused = Refused(session, action, advised or resource, explicit=outcome == "Deny")
        self.advise(f"{session.function} may not {action}: {refused.advice}")
        return refused

    def advise(self, advice: str) -> None:
        """Tells what the stack lacks."""
        self.advice[advice] = None
        logger.warning("%s", advice)

    def unused(self, services: Iterable[str]) -> Iterator[str]:
        """Grants of these services that nobody has used, e.g. `websocket: dynamodb:DeleteItem on arn:…`."""
        for session in self.sessions.values():
            for statement in session.role.statements:
                for pattern in statement.actions:
                    local = pattern.partition(":")[0].lower() in services and not statement.all_actions_but
                    if statement.effect == "Allow" and local and (statement, pattern) not in session.used:
                        yield f"{session.function}: {pattern} on {', '.join(statement.resources)}"
