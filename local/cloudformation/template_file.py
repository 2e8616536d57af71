"""Reads a template file and checks its form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from local.aws.account import Account
from local.cloudformation.values import expect, shorten
from local.errors import TemplateError

RESOURCE_ATTRIBUTES = {
    "Condition", "CreationPolicy", "DeletionPolicy", "DependsOn", "Metadata", "Properties", "Type", "UpdatePolicy",
    "UpdateReplacePolicy",
}  # fmt: skip
LANGUAGE_EXTENSIONS = "AWS::LanguageExtensions"  # only adds intrinsic functions


def parse(path: Path) -> dict[str, Any]:
    """Return the content of a template file. Raise TemplateError if it is no JSON object."""
    try:
        content = path.read_text(encoding="utf-8-sig")
        parsed = json.loads(content)
    except IsADirectoryError:
        names = ", ".join(sorted(each.name for each in path.glob("*.template.json"))) or "none"
        raise TemplateError(f"{path} is a folder; give a template file (in this folder: {names})") from None
    except OSError as error:
        raise TemplateError(f"{path} cannot be read: {error.strerror}") from error
    except json.JSONDecodeError as error:
        if not content.strip():
            raise TemplateError(f"{path} is empty") from error
        if not content.lstrip().startswith(("{", "[")):
            advice = "convert it with `cfn-flip` (pip install cfn-flip), or use the JSON that the CDK writes to cdk.out"
            raise TemplateError(f"{path} is not JSON, and YAML is not read: {advice}") from error
        raise TemplateError(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise TemplateError(f"{path} is no JSON text: {error}") from error
    return cast("dict[str, Any]", expect(dict, parsed, f"{path}: the template", "an object"))


def read_section(path: Path, content: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a section of a template: objects by their names."""
    found: dict[str, Any] = expect(dict, content.get(name, {}), f"{path}: {name}", "an object")
    for key, value in found.items():
        if key.startswith("Fn::"):
            raise TemplateError(f"{path}: {name}: {key} is expanded by CloudFormation; give the processed template")
        expect(dict, value, f"{path}: {name}: {key}", "an object")
    return found


def refuse_transforms(path: Path, transforms: Any) -> None:
    for name in transforms if isinstance(transforms, list) else [transforms]:
        if name != LANGUAGE_EXTENSIONS:
            raise TemplateError(
                f"{path}: Transform {shorten(name)} is applied by CloudFormation; give the processed template, for"
                " example from `aws cloudformation get-template --template-stage Processed`"
            )


def check_attributes(logical_id: str, resource: dict[str, Any]) -> None:
    """Raise TemplateError if a resource has an unknown attribute, or an attribute of the wrong type."""
    if unknown := sorted(resource.keys() - RESOURCE_ATTRIBUTES):
        raise TemplateError(
            f"{logical_id}: {', '.join(unknown)} is no attribute of a resource; has it been misspelled?"
        )
    expect(str, resource.get("Type"), f"{logical_id}: Type", "a text")
    expect(str, resource.get("Condition", ""), f"{logical_id}: Condition", "a text")
    for name in ("Properties", "Metadata"):
        expect(dict, resource.get(name, {}), f"{logical_id}: {name}", "an object")


def find_assembly_account(path: Path) -> Account | None:
    """Return the account and region of a template in its cloud assembly; None if it is in no cloud assembly."""
    try:
        artifacts = json.loads((path.parent / "manifest.json").read_text())["artifacts"].values()
        (bound,) = [
            each["environment"] for each in artifacts if each.get("properties", {}).get("templateFile") == path.name
        ]
        account, region = ("" if each.startswith("unknown-") else each for each in bound[len("aws://") :].split("/"))
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        return None
    return Account.of(account, region)
