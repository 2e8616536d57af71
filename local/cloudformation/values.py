"""Converts values to the types of properties, as CloudFormation does: "20" to 20, or true to "true"."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Container, Sized
from typing import Any, TypeVar

from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape

from local.errors import TemplateError

Scalar = str | int | float | bool
T = TypeVar("T")


def coerce(shape: Shape, value: Any, where: str, ignored: Container[str] = ()) -> Any:
    """Return the value, converted to the types of the shape, without the members in `ignored`.

    Raises:
        TemplateError: the value cannot be converted. The message starts with `where`.
    """
    result = value
    match shape:
        case StructureShape(is_document_type=False):
            result = coerce_structure(shape, expect(dict, value, where, "an object"), where, ignored)
        case MapShape():
            members = expect(dict, value, where, "an object").items()
            result = {name: coerce(shape.value, each, f"{where}.{name}", ignored) for name, each in members}
        case ListShape():
            items = expect(list, value, where, "a list")
            check_length(shape, items, where, "item(s)")
            result = [coerce(shape.member, each, f"{where}.{index}", ignored) for index, each in enumerate(items)]
        case StringShape():
            result = coerce_text(shape, value, where)
        case Shape(type_name="boolean"):
            result = coerce_boolean(value, where)
        case Shape(type_name="integer" | "long" | "float" | "double"):
            result = coerce_number(shape, value, where)
    return result


def coerce_structure(shape: StructureShape, value: dict[str, Any], where: str, ignored: Container[str]) -> Any:
    value = {name: each for name, each in value.items() if name not in ignored}
    if unknown := sorted(value.keys() - shape.members.keys()):
        raise TemplateError(
            f"{where}: {', '.join(unknown)} is not known here; leave it out of the local run, or correct its name"
        )
    if missing := [name for name in shape.required_members if name not in value]:
        raise TemplateError(f"{where}: {', '.join(missing)} is missing")
    return {name: coerce(shape.members[name], each, f"{where}.{name}", ignored) for name, each in value.items()}


def coerce_text(shape: StringShape, value: Any, where: str) -> str:
    result = to_text(value) if isinstance(value, Scalar) else None
    if result is None or result not in (shape.enum or [result]):
        raise build_error(where, " or ".join(shape.enum) if shape.enum else "a text", value)
    check_length(shape, result, where, "character(s)")
    if reference := re.search(r"\{\{resolve:.*?\}\}", result):
        raise TemplateError(f"{where}: the dynamic reference {reference[0]} is not resolved locally; use a value there")
    return result


def check_length(shape: Shape, value: Sized, where: str, unit: str) -> None:
    if len(value) < (least := shape.metadata.get("min", 0)):
        raise TemplateError(f"{where} must have at least {least} {unit}, it is {shorten(value)}")


def coerce_boolean(value: Any, where: str) -> bool:
    if str(value).lower() not in {"true", "false"}:
        raise build_error(where, "true or false", value)
    return str(value).lower() == "true"


def coerce_number(shape: Shape, value: Any, where: str) -> float:
    whole = shape.type_name in {"integer", "long"}
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    try:
        number = float("" if isinstance(value, bool) else value)
        fits = (low is None or low <= number) and (high is None or number <= high) and math.isfinite(number)
        if fits and not (whole and number != int(number)):
            return int(number) if whole else number
    except (OverflowError, TypeError, ValueError):
        pass
    limits = "" if low is None or high is None else f" from {low} to {high}"
    raise build_error(where, f"a {'whole ' if whole else ''}number{limits}", value)


def to_text(value: Scalar) -> str:
    """Return a scalar as text, in CloudFormation's format."""
    return value if isinstance(value, str) else json.dumps(value)


def expect(type_: type[T], value: Any, where: str, name: str) -> T:
    """Return the value if it has the type, else raise TemplateError."""
    if not isinstance(value, type_):
        raise build_error(where, name, value)
    return value


def build_error(where: str, expected: str, value: Any) -> TemplateError:
    return TemplateError(f"{where} must be {expected}, it is {shorten(value)}")


def shorten(value: Any) -> str:
    """Return the value as JSON, cut to 80 characters."""
    shown = json.dumps(value, ensure_ascii=False, default=lambda _: "AWS::NoValue")
    return shown if len(shown) <= 80 else f"{shown[:80]}…"
