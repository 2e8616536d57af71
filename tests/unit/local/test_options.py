"""The command line of `python -m local`: what each option changes, and the error for each wrong option."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from local import paths
from local.apigateway.limits import Limits
from local.arguments import build_options, check_context, parse_arguments
from local.paths import ROOT
from local.system import Options


def parse_options(*arguments: str) -> Options:
    return build_options(parse_arguments(arguments))


def test_up_listens_on_fixed_default_ports() -> None:
    assert (
        parse_options() == parse_options("up") == Options(port=4510, aws_port=4511, page_port=3000, inspector_port=3001)
    )


def test_demo_uses_free_ports_and_serves_no_pages() -> None:
    assert parse_options("demo") == Options(port=0, aws_port=0, page_port=None, inspector_port=None)


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ("--port 1234", {"port": 1234}),
        ("--port 0 --aws-port 0", {"port": 0, "aws_port": 0}),
        ("--aws-port 1234", {"aws_port": 1234}),
        ("--page-port 0", {"page_port": 0}),
        ("--page-port 3002", {"page_port": 3002}),
        ("--template cdk.json", {"template": Path("cdk.json")}),
        ("--context credential=subprotocol", {"context": {"credential": "subprotocol"}}),
        ("--context a=1 --context b=2", {"context": {"a": "1", "b": "2"}}),
        ("--context a=1 --context a=2", {"context": {"a": "2"}}),
        ("--context allowedOrigins=", {"context": {"allowedOrigins": ""}}),
        ("--context url=https://example.com/?a=b", {"context": {"url": "https://example.com/?a=b"}}),
        ("--images /", {"images": Path("/"), "functions": "process"}),
        ("--functions process", {"functions": "process"}),
        ("--functions image", {"functions": "image"}),
        ("--environments 5", {"environments": 5}),
        ("--dynamodb-url http://127.0.0.1:8000", {"dynamodb_url": "http://127.0.0.1:8000"}),
        ("--iam off", {"iam": False}),
        ("--iam enforce", {"iam": True}),
        ("--in-turn", {"in_turn": True}),
        ("--clock-speed 60", {"clock_speed": 60.0}),
        ("--idle-limit 0.5", {"limits": Limits(idle_seconds=0.5)}),
        ("--connection-limit 60", {"limits": Limits(connection_seconds=60)}),
        ("--idle-limit 5 --connection-limit 60", {"limits": Limits(idle_seconds=5, connection_seconds=60)}),
        ("--function-timeout 29", {"function_timeout": 29.0}),
    ],
)
@pytest.mark.parametrize("command", ["up", "demo"])
def test_option_changes_what_it_names_and_nothing_else(command: str, arguments: str, changes: dict[str, Any]) -> None:
    assert parse_options(command, *arguments.split()) == dataclasses.replace(parse_options(command), **changes)


def test_inspector_is_served_by_up_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_options("up", "--inspector-port", "1234") == dataclasses.replace(parse_options(), inspector_port=1234)
    with pytest.raises(SystemExit):
        parse_arguments(["demo", "--inspector-port=1234"])
    assert capsys.readouterr().err.startswith("--inspector-port=1234 is unknown; ")


@pytest.mark.parametrize("style", ["short", "full", "json"])
def test_log_has_three_styles(style: str) -> None:
    assert parse_arguments(["up", "--log", style]).log == style
    assert parse_arguments(["up"]).log == "short"


def test_images_may_be_a_relative_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sources").mkdir()

    assert parse_options("--images", "sources").images == tmp_path / "sources"
    assert parse_options().images == ROOT / "images"


NUMBER = "must be a number above 0, it is"
WHOLE_NUMBER = "must be a whole number above 0, it is"
PORT = "must be a port number from 0 (any that is free) to 65535, it is"


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        *((["up", f"{flag}={value}"], f"{flag} {NUMBER} {value!r}")
          for flag in ("--clock-speed", "--idle-limit", "--connection-limit", "--function-timeout")
          for value in ("0", "-1", "nan", "inf", "1e400", "soon", "")),
        *((["demo", f"--environments={value}"], f"--environments {WHOLE_NUMBER} {value!r}")
          for value in ("0", "-1", "1.5", "")),
        *(([command, "--port", value, *rest], f"--port {PORT} {value!r}")
          for command, *rest in (["up"], ["demo"], ["token"], ["user", "a@b"], ["connection"], ["post", "a"])
          for value in ("99999", "-1", "http")),
        (["up", "--aws-port=65536"], f"--aws-port {PORT} '65536'"),
        (["up", "--page-port="], f"--page-port {PORT} ''"),
        *((["up", f"--context={value}"], f"--context must be NAME=VALUE, it is {value!r}")
          for value in ("credential", "=subprotocol", "=", "")),
        (["up", "--functions=lambda"], "--functions must be auto, process or image, it is 'lambda'"),
        (["up", "--log=long"], "--log must be short, full or json, it is 'long'"),
        (["up", "--inspector-port=65536"], f"--inspector-port {PORT} '65536'"),
        (["up", "--iam", "maybe"], "--iam must be enforce or off, it is 'maybe'"),
        (["up", "--template", "missing.json"], "--template must be a file, 'missing.json' does not exist"),
        (["up", "--images", "missing"], "--images must be a folder, 'missing' is not"),
        *((["up", f"--dynamodb-url={value}"], f"--dynamodb-url must be a URL such as http://127.0.0.1:8000, it is {value!r}")
          for value in ("", "localhost:8000", "ftp://localhost", "http://", "http://[", "http://localhost:port")),
        (["up", "--port"], "--port needs a value"),
        (["--no-such-option"], "--no-such-option is unknown"),
        (["up", "somewhere"], "somewhere is unknown"),
        (["up", "--clock", "5"], "--clock is unknown"),
        (["token", "--clock-speed", "5"], "--clock-speed is unknown"),
        (["user"], "email is missing"),
        (["post"], "message is missing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_wrong_argument_is_named_in_one_line_with_the_rule(
    capsys: pytest.CaptureFixture[str], arguments: list[str], rule: str
) -> None:
    with pytest.raises(SystemExit) as end:
        parse_arguments(arguments)

    command = arguments[0] if arguments[0][0] != "-" else "up"
    assert end.value.code == 2
    assert capsys.readouterr().err == f"{rule}; try `python -m local {command} --help`\n"


def test_error_of_an_unknown_command_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse_arguments(["down", "--port=1"])

    there_are = "there are up, demo, token, user, connection, post"
    assert end.value.code == 2
    assert capsys.readouterr().err == f"there is no command 'down', {there_are}; try `python -m local --help`\n"


@pytest.mark.parametrize("command", [[], ["up"], ["demo"], ["token"], ["user"], ["connection"], ["post"]])
def test_help_names_the_command(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse_arguments([*command, "--help"])

    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m local {' '.join(command)}".rstrip())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--context credential=header", "context credential is 'header', it must be one of querystring, subprotocol"),
        ("--context allowedOrigins=", "context allowedOrigins has '', it must be an origin"),
        ("--context no=1", "context no is unknown, there are credential, "),
        ("--template cdk.json --context credential=subprotocol", "--context has no effect with --template, which is"),
    ],
)
def test_wrong_context_is_refused_before_anything_starts(arguments: str, message: str) -> None:
    with pytest.raises(SystemExit) as end:
        check_context(parse_arguments(["up", *arguments.split()]))

    assert str(end.value.code).startswith(message)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", r", line 1, column 2: Expecting property name"),
        ("[]", r": app must be a command"),
        ('{"app": "python app.py"}', r": context must be an object"),
    ],
)
def test_error_in_cdk_json_names_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, fault: str
) -> None:
    (tmp_path / "cdk.json").write_text(text)
    monkeypatch.setattr(paths, "ROOT", tmp_path)

    with pytest.raises(SystemExit, match=f"cdk\\.json{fault}"):
        check_context(parse_arguments(["up", f"--images={tmp_path}"]))


@pytest.mark.parametrize(
    ("flag", "port", "other"), [("--page-port", 4510, "--port"), ("--inspector-port", 3000, "--page-port")]
)
def test_two_parts_cannot_have_one_port(capsys: pytest.CaptureFixture[str], flag: str, port: int, other: str) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["up", f"{flag}={port}"])

    assert capsys.readouterr().err.startswith(f"{other} and {flag} must differ, both are {port}; try ")
    assert parse_arguments(["up", "--port=0", "--aws-port=0", "--page-port=0", "--inspector-port=0"])
