"""The resolved form of a template, after its resources were created."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from local.apigateway.api import Api
from local.aws.account import Account
from local.lambda_.function import Function


@dataclass(frozen=True)
class Stack:
    """The parts of a template that the local run needs, with all references resolved.

    Attributes:
        functions: the invoked functions by ARN.
        physical_ids: the ids of created resources by type, in the template's order.
        outputs: the values of the requested outputs.
    """

    account: Account
    api: Api
    functions: dict[str, Function]
    physical_ids: dict[str, list[str]]
    outputs: dict[str, Any]

    def find_first(self, type_: str) -> str | None:
        """Return the physical id of the first resource of a type; None if there is none."""
        return next(iter(self.physical_ids.get(type_, ())), None)
