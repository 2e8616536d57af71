"""How the local run synthesizes a project."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from local.cloudformation.synthesis import synthesize
from local.cloudformation.template import Template
from local.errors import TemplateError
from local.page_settings import PAGE_CONFIG, parse_page_config


@pytest.fixture
def app(tmp_path: Path) -> Callable[[str], Path]:
    """A folder whose cdk.json runs this shell script."""

    def write_app(script: str) -> Path:
        (tmp_path / "app.sh").write_text(script)
        (tmp_path / "cdk.json").write_text(json.dumps({"app": "sh app.sh", "context": {"removalPolicy": "destroy"}}))
        return tmp_path

    return write_app


def test_synthesis_runs_the_app_as_the_cdk_would(app: Callable[[str], Path]) -> None:
    root = app('mkdir -p "$CDK_OUTDIR" && printf %s "$CDK_CONTEXT_JSON" > "$CDK_OUTDIR/Chat.template.json"')

    path = synthesize(root, root / "out")

    assert path == root / "out" / "Chat.template.json"
    assert json.loads(path.read_text()) == {"removalPolicy": "destroy"}


def test_error_of_a_failed_synthesis_has_the_end_of_the_apps_output(app: Callable[[str], Path]) -> None:
    root = app("echo context removalPolicy must be one of destroy, retain >&2; exit 1")

    with pytest.raises(TemplateError) as error:
        synthesize(root, root / "out")

    assert str(error.value) == "sh app.sh failed:\ncontext removalPolicy must be one of destroy, retain"


def test_own_stack_has_the_settings_of_its_page(own_template: Path) -> None:
    config = parse_page_config(Template.read(own_template).resolve([PAGE_CONFIG]).outputs)

    assert config is not None
    assert {"userPoolId", "appClientId", "webSocketEndpoint", "credential", "selfSignUp", "allowedOrigins"} <= {*config}
