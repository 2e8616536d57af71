"""cdk-nag and cfn-lint report only findings about the stack that its constructs accept with a reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from cdk_nag import AwsSolutionsChecks
from cfnlint.api import lint  # type: ignore[import-untyped]

from infra.backend_stack import BackendStack
from tests.fixtures.stack import EVERY_OPTION, build_stack, synthesize_template

OPTIONS = pytest.mark.parametrize("options", [{}, EVERY_OPTION], ids=["by default", "with every option"])


def run_cdk_nag(stack: cdk.Stack) -> set[str]:
    """Run cdk-nag's AwsSolutions pack; return each finding with its construct."""
    cdk.assertions.Template.from_stack(stack)  # synthesis completes the tree of constructs
    app = stack.node.root
    violations = AwsSolutionsChecks(app).validate_scope(app).violations
    return {
        f"{each.construct_path}: {violation.rule_name}"
        for violation in violations
        for each in violation.violating_resources
    }


def run_cfn_lint(template: Mapping[str, Any]) -> set[str]:
    """Run cfn-lint; return the ids of its errors and warnings."""
    return {match.rule.id for match in lint(json.dumps(template))}


@OPTIONS
def test_cdk_nag_finds_nothing(options: dict[str, Any]) -> None:
    assert run_cdk_nag(build_stack(**options)) == set()


@pytest.fixture
def accepted(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Record the findings that the stack accepts, with the reasons, instead of accepting them."""
    accepted: dict[str, str] = {}

    def record(_: cdk.Validations, *rules: cdk.Acknowledgment) -> None:
        accepted.update({rule.id: rule.reason for rule in rules})

    monkeypatch.setattr(cdk.Validations, "acknowledge", record)
    return accepted


@OPTIONS
def test_stack_accepts_what_cdk_nag_would_find_and_no_more(accepted: dict[str, str], options: dict[str, Any]) -> None:
    found = run_cdk_nag(build_stack(**options))

    assert {finding.partition(": ")[2] for finding in found} == accepted.keys()
    assert [finding for finding, reason in accepted.items() if len(reason.split()) < 8] == []


def test_everything_is_accepted_in_a_stack_of_a_known_account_too() -> None:
    """In such a stack the ids of findings differ."""
    app = cdk.App()
    known = cdk.Environment(account="123456789012", region="eu-central-1")

    assert run_cdk_nag(BackendStack(app, "Stack", env=known)) == set()


def test_cdk_nag_finds_what_a_careless_change_would_add() -> None:
    careless = build_stack()
    policy = iam.PolicyStatement(actions=["dynamodb:*"], resources=["*"])
    role = iam.Role(careless, "Careless", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    role.add_to_policy(policy)

    assert run_cdk_nag(careless) == {
        "Stack/Careless/DefaultPolicy/Resource: AwsSolutions-IAM5[Action::dynamodb:*]",
        "Stack/Careless/DefaultPolicy/Resource: AwsSolutions-IAM5[Resource::*]",
    }


@OPTIONS
def test_cfn_lint_finds_nothing(options: dict[str, Any]) -> None:
    assert run_cfn_lint(synthesize_template(**options).to_json()) == set()


def test_cfn_lint_finds_what_cloudformation_would_refuse() -> None:
    template = synthesize_template().to_json()
    (authorizer, *_) = [each for each in template["Resources"].values() if each["Type"] == "AWS::Lambda::Function"]

    authorizer["Properties"] |= {"MemorySize": 64, "Handlers": "authorizer.handler"}

    assert run_cfn_lint(template) == {"E3002", "E3034"}
