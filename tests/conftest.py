"""Options of the tests, and the fixtures that all of them know."""

from __future__ import annotations

import importlib
import os

import pytest

pytest.register_assert_rewrite("tests.fixtures")
pytest_plugins = [
    "tests.fixtures.aws",
    "tests.fixtures.emulator",
    "tests.fixtures.engine",
    "tests.fixtures.events",
    "tests.fixtures.functions",
    "tests.fixtures.gateway",
    "tests.fixtures.make_up",
    "tests.fixtures.network",
    "tests.fixtures.runtime",
    "tests.fixtures.templates",
    "tests.fixtures.tokens",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-containers",
        action="store_true",
        help="fail, instead of skipping, the tests that need a Docker engine when there is none",
    )
    parser.addoption(
        "--require-browser",
        action="store_true",
        help="fail, instead of skipping, the tests of the page when there is no Chromium",
    )


def pytest_configure() -> None:
    """Run before anything imports aws_cdk, whose Node process keeps the environment that it starts in."""
    os.environ["CDK_VALIDATION"] = "false"  # `cdk synth` validates; here it would only cost seconds
    importlib.import_module("infra")  # silences jsii
