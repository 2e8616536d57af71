"""The program behind `make page-config`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.page_config import main

CONFIG = {"userPoolId": "us-east-1_Example01", "selfSignUp": True, "allowedOrigins": ["https://app.example.com"]}
STACK = {"Region": "us-east-1", "PageConfig": json.dumps(CONFIG)}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder, as in a clone that was never deployed."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_outputs(path: Path, stacks: Any) -> None:
    path.write_text(json.dumps(stacks))


def test_page_config_of_the_only_stack_is_written_where_the_page_reads_it(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_outputs(directory / "outputs.json", {"Certificates": {"Arn": "arn:aws:acm:…"}, "WebSocketCognito": STACK})

    main([])

    written = (directory / "frontend/public/config.json").read_text()
    assert written == json.dumps(CONFIG, indent=2) + "\n"
    assert capsys.readouterr().out == (
        "frontend/public/config.json now has the settings of stack WebSocketCognito; next: cd frontend && npm run dev\n"
    )


def test_both_files_can_be_named(directory: Path) -> None:
    write_outputs(directory / "mine.json", {"WebSocketCognito": STACK})

    main(["mine.json", "built/config.json"])

    assert json.loads((directory / "built/config.json").read_text()) == CONFIG
    assert sorted(path.name for path in directory.iterdir()) == ["built", "mine.json"]


def test_config_of_an_earlier_deployment_is_replaced(directory: Path) -> None:
    write_outputs(directory / "outputs.json", {"WebSocketCognito": STACK})
    (directory / "config.json").write_text("x" * 10_000)

    main(["outputs.json", "config.json"])

    assert json.loads((directory / "config.json").read_text()) == CONFIG


AGAIN = "run `npx cdk deploy --outputs-file outputs.json` again"
NOT_STACKS = "outputs.json must be a JSON object of stacks"
NOT_CONFIG = "outputs.json: PageConfig of Blue must be a JSON object"
NO_CONFIG = "outputs.json has no output PageConfig"
TWO_CONFIGS = (
    "outputs.json has the output PageConfig of Blue, Green, but a page has one stack; "
    "run `npx cdk deploy STACK --outputs-file outputs.json` with one of them"
)


@pytest.mark.parametrize(
    ("stacks", "message"),
    [
        ("", f"{NOT_STACKS}: Expecting value: line 1 column 1 (char 0); {AGAIN}"),
        ("Outputs:", f"{NOT_STACKS}: Expecting value: line 1 column 1 (char 0); {AGAIN}"),
        ([1, 2], f"{NOT_STACKS}: it is [1, 2]; {AGAIN}"),
        ({}, f"{NO_CONFIG} (stacks: none): an older version is deployed; {AGAIN}"),
        (
            {"Blue": {"Region": "us-east-1"}, "name": "PageConfig"},
            f"{NO_CONFIG} (stacks: Blue, name): an older version is deployed; {AGAIN}",
        ),
        ({"Blue": STACK, "Other": {}, "Green": STACK}, TWO_CONFIGS),
        ({"Blue": {"PageConfig": "{"}}, f"{NOT_CONFIG}: Expecting property name enclosed in double quotes: line 1"),
        ({"Blue": {"PageConfig": "[]"}}, f"{NOT_CONFIG}: it is []; {AGAIN}"),
        ({"Blue": {"PageConfig": CONFIG}}, f"{NOT_CONFIG}: the JSON object must be str, bytes or bytearray, not dict"),
    ],
    ids=["empty", "text", "list", "no stack", "older stack", "two stacks", "cut off", "value is a list", "no text"],
)
def test_outputs_that_do_not_fit_are_named_with_the_rule_and_the_next_step(
    directory: Path, stacks: Any, message: str
) -> None:
    content = stacks if isinstance(stacks, str) else json.dumps(stacks)
    (directory / "outputs.json").write_text(content)

    with pytest.raises(SystemExit) as refusal:
        main([])

    assert str(refusal.value.code).startswith(message)
    assert "run `npx cdk deploy" in str(refusal.value.code)
    assert not (directory / "frontend").exists()


def test_missing_outputs_are_named_with_the_command_that_writes_them(directory: Path) -> None:
    with pytest.raises(SystemExit) as refusal:
        main([])

    assert refusal.value.code == ("outputs.json does not exist; run `npx cdk deploy --outputs-file outputs.json` first")


def test_outputs_that_cannot_be_read_are_named(directory: Path) -> None:
    (directory / "outputs.json").mkdir()

    with pytest.raises(SystemExit) as refusal:
        main([])

    assert str(refusal.value.code).startswith("outputs.json cannot be read: Is a directory; ")


def test_target_that_cannot_be_written_is_named(directory: Path) -> None:
    write_outputs(directory / "outputs.json", {"WebSocketCognito": STACK})
    (directory / "frontend").write_text("a file where a folder belongs")

    with pytest.raises(SystemExit) as refusal:
        main([])

    assert str(refusal.value.code).startswith("frontend/public/config.json cannot be written: ")
