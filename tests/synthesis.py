"""The stack's template and what is in it, for the tests that read it."""

from __future__ import annotations

import json
from typing import Any

import aws_cdk as cdk
from aws_cdk.assertions import Template

from infra.backend_stack import BackendStack
from infra.websocket_api import Credential
from tests.conftest import ROOT

Resources = dict[str, dict[str, Any]]

CONTEXT: dict[str, Any] = json.loads((ROOT / "cdk.json").read_text())["context"]
ORIGINS = ["https://app.example.com", "http://localhost:5173"]
# Every option that adds something, so that what holds with these and without holds with any of them.
EVERY_OPTION: dict[str, Any] = {
    "credential": Credential.SUBPROTOCOL,
    "allowed_origins": ORIGINS,
    "allow_missing_origin": True,
    "required_group": "staff",
    "max_connections_per_user": 3,
    "self_sign_up": True,
    "alarm_email": "operator@example.com",
}


def stack(*, outdir: str | None = None, **options: Any) -> BackendStack:
    return BackendStack(cdk.App(outdir=outdir, context=CONTEXT), "Stack", **options)


def synthesized(*, outdir: str | None = None, **options: Any) -> Template:
    return Template.from_stack(stack(outdir=outdir, **options))


def of_type(template: Template, type_: str) -> Resources:
    return {id_: dict(resource) for id_, resource in template.find_resources(type_).items()}


def only(resources: Resources) -> dict[str, Any]:
    (resource,) = resources.values()
    properties: dict[str, Any] = resource["Properties"]
    return properties


def functions(template: Template) -> Resources:
    """The functions by the bake target of their image."""
    found = of_type(template, "AWS::Lambda::Function")
    return {
        function["Metadata"]["BakeTarget"]: {**function["Properties"], "id": id_} for id_, function in found.items()
    }


def environment(template: Template, target: str) -> dict[str, str]:
    """The variables of a function, with ${...} for what they refer to."""
    variables = functions(template)[target]["Environment"]["Variables"]
    return {name: text(value) for name, value in variables.items()}


def outputs_of(template: Template) -> dict[str, str]:
    """The outputs of the stack, with ${...} for what they refer to."""
    return {name: text(output["Value"]) for name, output in template.to_json()["Outputs"].items()}


def text(value: Any) -> str:
    """A CloudFormation value as text, with ${...} for what it refers to."""
    if isinstance(value, str):
        return value
    if "Fn::Join" in value:
        separator, parts = value["Fn::Join"]
        return str(separator).join(text(part) for part in parts)
    ((_, reference),) = value.items()
    return "${" + (reference if isinstance(reference, str) else ".".join(reference)) + "}"
