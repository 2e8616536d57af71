"""What the authorizer imports, in a fresh process with the locked packages of its image."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from types import ModuleType

import pytest

from tests.fixtures import ROOT
from tests.fixtures.events import load_event
from tests.fixtures.functions import AUTHORIZER, EXECUTION_ENVIRONMENT, get_effect
from tests.fixtures.network import LoopbackServer, find_free_port
from tests.fixtures.tokens import JWKS_ENDPOINT, Sign

PYTHON = ROOT / ".local" / "venvs" / "authorizer" / "bin" / "python"
TASK_ROOT = ROOT / "images" / "authorizer"
CODE = "import json, sys, authorizer; print(json.dumps(authorizer.handler(json.load(sys.stdin), None)))"
TRACE_ID = "Root=1-5759e988-aaaaaaaaaaaaaaaaaaaaaaaa;Parent=53995c3f42cd8ad8;Sampled={:d}"
# They take long to load, and nothing here calls them.
SLOW = {
    "cryptography.x509",
    "cryptography.hazmat.primitives.serialization.ssh",
    "asyncio",
    "botocore",
    "importlib.metadata",
}
OF_X_RAY = {"aws_xray_sdk", "dataclasses", "inspect"}


def connect(token: str, jwks: LoopbackServer, **environ: str) -> tuple[str, set[str]]:
    """Return the effect of the first invocation, and the modules that Python reports to have loaded until then."""
    assert PYTHON.exists(), f"{PYTHON} is missing, run `make setup`"
    variables = {**EXECUTION_ENVIRONMENT, **AUTHORIZER, "LAMBDA_TASK_ROOT": str(TASK_ROOT), JWKS_ENDPOINT: jwks.url}
    ran = subprocess.run(
        [PYTHON, "-B", "-X", "importtime", "-c", CODE],
        cwd=TASK_ROOT,
        env=variables | environ,
        input=json.dumps(load_event("authorizer", queryStringParameters={"idToken": token})),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    loaded = re.findall(r"^import time:.*\| +([\w.]+)$", ran.stderr, re.MULTILINE)
    return get_effect(json.loads(ran.stdout)), set(loaded)


@pytest.mark.parametrize("environ", [{}, {"_X_AMZN_TRACE_ID": TRACE_ID.format(False)}], ids=["untraced", "unsampled"])
def test_token_is_verified_without_slow_modules(sign: Sign, jwks: LoopbackServer, environ: dict[str, str]) -> None:
    answer, loaded = connect(sign(), jwks, **environ)

    assert answer == "Allow"
    assert {"joserfc", "cryptography"} <= loaded
    assert loaded & (SLOW | OF_X_RAY) == set()


def test_sampled_invocation_loads_the_x_ray_sdk_without_slow_modules(sign: Sign, jwks: LoopbackServer) -> None:
    daemon = {"AWS_XRAY_DAEMON_ADDRESS": f"127.0.0.1:{find_free_port()}"}

    answer, loaded = connect(sign(), jwks, _X_AMZN_TRACE_ID=TRACE_ID.format(True), **daemon)

    assert answer == "Allow"
    assert "aws_xray_sdk" in loaded
    assert loaded & SLOW == set()


def test_stand_in_is_there_during_the_import_only(imported_authorizer: ModuleType) -> None:
    with imported_authorizer.skip_import_of("no_such_module"):
        assert importlib.import_module("no_such_module").anything is None
    assert "no_such_module" not in sys.modules


def test_module_that_is_loaded_already_has_no_stand_in(imported_authorizer: ModuleType) -> None:
    with imported_authorizer.skip_import_of("json"):
        assert sys.modules["json"] is json
    assert sys.modules["json"] is json
