"""Evaluates CloudFormation's intrinsic functions.

https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference.html
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any, Protocol

from local.cloudformation.values import Scalar, expect, shorten, to_text
from local.errors import TemplateError

REMOVED = object()  # the value of `Ref: AWS::NoValue`, which removes the property or the item


class Scope(Protocol):
    """The template that intrinsic functions refer to. `where` starts the message of a TemplateError."""

    mappings: dict[str, Any]

    def resolve_reference(self, name: str, where: str) -> Any:
        """Return the value of `Ref` for a parameter, pseudo parameter or resource."""

    def resolve_attribute(self, logical_id: str, name: str, where: str) -> str:
        """Return the value of `Fn::GetAtt` for a resource."""

    def evaluate_condition(self, name: str, where: str) -> bool:
        """Return whether a condition of the template is true."""


def evaluate(scope: Scope, value: Any, where: str) -> Any:
    """Return the value with its intrinsic functions evaluated.

    Raises:
        TemplateError: a function is unknown, has wrong arguments, or refers to something unknown.
    """
    if isinstance(value, list):
        return [each for item in value if (each := evaluate(scope, item, where)) is not REMOVED]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (name, argument) = next(iter(value.items()))
        if name in FUNCTIONS and (name != "Condition" or isinstance(argument, str)):
            try:
                return FUNCTIONS[name](scope, argument, where)
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                raise TemplateError(f"{where}: {name} has wrong arguments: {shorten(argument)}") from error
        if name.startswith("Fn::"):
            raise TemplateError(f"{where}: {name} cannot be evaluated locally; use a value or a parameter's Default")
    evaluated = ((key, evaluate(scope, item, where)) for key, item in value.items())
    return {key: each for key, each in evaluated if each is not REMOVED}


def get_attribute(scope: Scope, argument: Any, where: str) -> str:
    logical_id, name = argument.split(".", 1) if isinstance(argument, str) else argument
    return scope.resolve_attribute(logical_id, evaluate(scope, name, where), where)


def join(scope: Scope, argument: Any, where: str) -> str:
    separator, items = argument
    parts = [
        format_scalar(each)
        for each in expect(list, evaluate(scope, items, where), f"{where}: what Fn::Join joins", "a list")
    ]
    return str(separator).join(parts)


def substitute(scope: Scope, argument: Any, where: str) -> str:
    template, variables = (argument, {}) if isinstance(argument, str) else argument

    def replace(match: re.Match[str]) -> str:
        name = match[1].strip()
        if name.startswith("!"):
            return "${" + name[1:] + "}"
        if name in variables:
            return format_scalar(evaluate(scope, variables[name], where))
        if "." in name:
            return get_attribute(scope, name, where)
        return format_scalar(scope.resolve_reference(name, where))

    return re.sub(r"\$\{([^}]+)\}", replace, template)


def select(scope: Scope, argument: Any, where: str) -> Any:
    index, items = argument
    number = int(evaluate(scope, index, where))
    chosen = evaluate(scope, items, where)
    if number < 0:
        raise IndexError(number)
    return expect(list, chosen, f"{where}: what Fn::Select selects from", "a list")[number]


def split(scope: Scope, argument: Any, where: str) -> list[str]:
    separator, value = argument
    return format_scalar(evaluate(scope, value, where)).split(separator)


def find_in_map(scope: Scope, argument: Any, where: str) -> Any:
    name, first, second, *options = [evaluate(scope, each, where) for each in argument]
    try:
        return scope.mappings[name][first][second]
    except KeyError:
        if options:
            return options[0]["DefaultValue"]
        raise TemplateError(f"{where}: Mappings has no {name}.{first}.{second}") from None


def choose(scope: Scope, argument: Any, where: str) -> Any:
    condition, yes, no = argument
    return evaluate(scope, yes if scope.evaluate_condition(condition, where) else no, where)


def evaluate_boolean(scope: Scope, argument: Any, where: str) -> bool:
    """Return the value of an operand of Fn::And, Fn::Or or Fn::Not."""
    value = evaluate(scope, argument, where)
    if to_text(value) not in {"true", "false"}:
        raise ValueError(value)
    return to_text(value) == "true"


def compare(scope: Scope, argument: Any, where: str) -> bool:
    one, other = evaluate(scope, argument, where)
    return one == other if isinstance(one, list) else format_scalar(one) == format_scalar(other)


def negate(scope: Scope, argument: Any, where: str) -> bool:
    (operand,) = argument
    return not evaluate_boolean(scope, operand, where)


def format_scalar(value: Any) -> str:
    """Return a scalar as text. Raise TypeError for an object or a list."""
    if not isinstance(value, Scalar):
        raise TypeError(value)
    return to_text(value)


FUNCTIONS: dict[str, Callable[[Any, Any, str], Any]] = {
    "Condition": lambda scope, name, where: scope.evaluate_condition(name, where),
    "Fn::And": lambda scope, operands, where: all(evaluate_boolean(scope, each, where) for each in operands),
    "Fn::Base64": lambda scope, value, where: base64.b64encode(
        format_scalar(evaluate(scope, value, where)).encode()
    ).decode(),
    "Fn::Equals": compare,
    "Fn::FindInMap": find_in_map,
    "Fn::GetAtt": get_attribute,
    "Fn::If": choose,
    "Fn::Join": join,
    "Fn::Length": lambda scope, value, where: len(evaluate(scope, value, where)),
    "Fn::Not": negate,
    "Fn::Or": lambda scope, operands, where: any(evaluate_boolean(scope, each, where) for each in operands),
    "Fn::Select": select,
    "Fn::Split": split,
    "Fn::Sub": substitute,
    "Fn::ToJsonString": lambda scope, value, where: json.dumps(evaluate(scope, value, where), separators=(",", ":")),
    "Ref": lambda scope, name, where: scope.resolve_reference(name, where),
}
