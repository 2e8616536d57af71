"""The command line of `python -m ops`: the error for each wrong use, and the operator's name."""

from __future__ import annotations

import getpass
import os

import pytest

from ops import arguments
from ops.__main__ import main
from ops.arguments import clean_name

WHERE = ["--table", "connections", "--callback-url", "https://example.com/prod", "--region", "us-east-1"]


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ([], "COMMAND is missing"),
        (["who"], "--local, --stack NAME, or --table and --callback-url must say where the connections are"),
        (["who", "--local", "--stack", "Chat"], "--local and --stack exclude each other"),
        (["who", "--stack", "Chat", "--table", "x"], "--stack and --table exclude each other"),
        (["who", "--table", "x"], "--table and --callback-url belong together"),
        (
            ["who", "--table", "x", "--callback-url", "example.com"],
            "--callback-url must be a URL that begins with https://, it is",
        ),
        (["who", *WHERE, "--port", "1"], "--port is for --local only"),
        (["who", "--local", "--port", "0"], "--port must be a number from 1 to 65535, it is '0'"),
        (["who", "--local", "--region", "us-east-1"], "--region and --profile are not for --local"),
        (["push", *WHERE, "news"], "one of the arguments --user --all is required"),
        (["push", *WHERE, "--all", "--user", "x", "news"], "--user not allowed with argument --all"),
        (["kick", *WHERE], "one of the arguments --user --connection is required"),
        (["kick", *WHERE, "--user", ""], "--user must not be empty"),
        (["kick", *WHERE, "--connection", "x", "--disable"], "--disable needs --user"),
        (["kick", *WHERE, "--connection", "x", "--by", "\t"], "--by must have printable ASCII characters"),
        (["who", *WHERE, "--threads", "none"], "--threads must be a number from 1 to 256, it is 'none'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line_with_status_2(
    capsys: pytest.CaptureFixture[str], words: list[str], wrong: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)

    line = capsys.readouterr().err
    assert line.startswith(wrong)
    assert (line.count("\n"), ended.value.code) == (1, 2)


@pytest.mark.parametrize("words", ["--connection {}", "--connection={}"])
def test_connection_id_may_begin_with_hyphens(words: str) -> None:
    parsed = arguments.parse_arguments(["kick", "--local", *words.format("--zdL3JpdBTsfVA=").split()])

    assert parsed.connection == "--zdL3JpdBTsfVA="


@pytest.mark.parametrize(
    ("name", "cleaned"), [("ada", "ada"), ("  Ada\x1b[31m é ", "Ada[31m"), ("x" * 80, "x" * 64), ("é", "")]
)
def test_name_of_the_operator_is_printable_ascii(name: str, cleaned: str) -> None:
    assert clean_name(name) == cleaned


def test_operator_without_a_name_is_known_by_uid(monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_key_error() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", raise_key_error)

    assert arguments.find_own_name() == f"uid {os.getuid()}"
