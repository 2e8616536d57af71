"""The outputs of a template, resolved with the ids of the created resources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from local.cloudformation.template import Template
from local.errors import TemplateError
from local.page_settings import PAGE_CONFIG, parse_page_config
from tests.fixtures.templates import build_resources, resource


def template(folder: Path, **outputs: Any) -> Template:
    path = folder / "Chat.template.json"
    resources = build_resources(Users=resource("Cognito::UserPool"), Log=resource("Logs::LogGroup"))
    path.write_text(json.dumps({"Resources": resources, "Outputs": outputs}))
    return Template.read(path)


def page_config(*value: Any) -> dict[str, Any]:
    return {"PageConfig": {"Description": "For its page", "Value": {"Fn::Join": ["", [*value]]}}}


def test_output_has_the_ids_of_the_resources(tmp_path: Path) -> None:
    read = template(tmp_path, Where={"Value": {"Fn::Sub": "${AWS::Region}/${Users}/${Beta}"}, "Export": {"Name": "x"}})
    read.physical_ids["Users"] = "us-east-1_AbCdEfGhI"

    assert read.evaluate_output("Where") == "us-east-1/us-east-1_AbCdEfGhI/beta"


def test_settings_of_the_page_are_read_from_their_output(tmp_path: Path) -> None:
    read = template(tmp_path, **page_config('{"userPoolId": "', {"Ref": "Users"}, '", "selfSignUp": true}'))
    read.physical_ids["Users"] = "us-east-1_AbCdEfGhI"

    assert parse_page_config(read.resolve([PAGE_CONFIG]).outputs) == {
        "userPoolId": "us-east-1_AbCdEfGhI",
        "selfSignUp": True,
    }


def test_template_without_that_output_has_no_settings_of_a_page(tmp_path: Path) -> None:
    assert (
        parse_page_config(template(tmp_path, Region={"Value": {"Ref": "AWS::Region"}}).resolve([PAGE_CONFIG]).outputs)
        is None
    )


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        (page_config({"Ref": "Nobody"}), "Nobody is no resource"),
        (page_config({"Fn::GetAtt": ["Users", "Typo"]}), "Fn::GetAtt Users.Typo"),
        (page_config({"Fn::ImportValue": "elsewhere"}), "Fn::ImportValue"),
        ({"PageConfig": {"Value": "{}", "Condition": "OnSundays"}}, "condition OnSundays is not defined"),
        (page_config('{"userPoolId": ', {"Ref": "Users"}, "}"), "is not JSON"),
        ({"PageConfig": {"Value": ["{}"]}}, "is not JSON"),
        (page_config("[]"), "is not a JSON object"),
    ],
)
def test_error_names_an_output_that_cannot_be_used(tmp_path: Path, outputs: dict[str, Any], reason: str) -> None:
    read = template(tmp_path, **outputs)

    with pytest.raises(TemplateError, match=f"^output PageConfig: .*{reason}"):
        parse_page_config(read.resolve([PAGE_CONFIG]).outputs)


def test_outputs_that_are_not_read_are_not_checked(tmp_path: Path) -> None:
    read = template(tmp_path, Other={"Value": {"Fn::ImportValue": "elsewhere"}}, **page_config("{}"))

    assert parse_page_config(read.resolve([PAGE_CONFIG]).outputs) == {}
