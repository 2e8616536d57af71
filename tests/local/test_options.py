"""The options of `python -m local`, and what it prints because of them."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from local.__main__ import options, parser, usage
from local.apigateway.limits import Limits
from local.aws.account import Account
from local.aws.iam import Iam
from local.aws.ministack import LocalAws
from local.cloudformation.stack import Stack
from local.paths import ROOT
from local.system import Options, System
from tests.local.conftest import OUR_ROUTES, api


def chosen(*arguments: str) -> Options:
    return options(parser().parse_args(arguments))


def test_up_listens_on_ports_that_can_be_remembered() -> None:
    assert chosen() == chosen("up") == Options(port=4510, aws_port=4511, page_port=3000)


def test_demo_is_in_nobodys_way_and_serves_no_page() -> None:
    assert chosen("demo") == Options(port=0, aws_port=0, page_port=None)


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ("--port 1234", {"port": 1234}),
        ("--port 0 --aws-port 0", {"port": 0, "aws_port": 0}),
        ("--aws-port 1234", {"aws_port": 1234}),
        ("--page-port 0", {"page_port": 0}),
        ("--page-port 3001", {"page_port": 3001}),
        ("--template other.template.json", {"template": Path("other.template.json")}),
        ("--context credential=subprotocol", {"context": {"credential": "subprotocol"}}),
        ("--context a=1 --context b=2", {"context": {"a": "1", "b": "2"}}),
        ("--context a=1 --context a=2", {"context": {"a": "2"}}),
        ("--context allowedOrigins=", {"context": {"allowedOrigins": ""}}),
        ("--context url=https://example.com/?a=b", {"context": {"url": "https://example.com/?a=b"}}),
        ("--images /somewhere/else", {"images": Path("/somewhere/else")}),
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
    assert chosen(command, *arguments.split()) == dataclasses.replace(chosen(command), **changes)


def test_images_may_be_named_from_where_one_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)

    assert chosen("--images", "sources").images == tmp_path / "sources"
    assert chosen().images == ROOT / "images"


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e400", "soon", ""])
@pytest.mark.parametrize(
    "option", ["--clock-speed", "--idle-limit", "--connection-limit", "--function-timeout", "--environments"]
)
def test_number_that_makes_no_sense_is_refused(capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
    with pytest.raises(SystemExit) as end:
        chosen(f"{option}={value}")

    assert end.value.code == 2
    assert f"argument {option}: invalid " in capsys.readouterr().err


@pytest.mark.parametrize("value", ["credential", "=subprotocol", "=", ""])
def test_context_without_a_name_or_a_value_is_refused(capsys: pytest.CaptureFixture[str], value: str) -> None:
    with pytest.raises(SystemExit) as end:
        chosen(f"--context={value}")

    assert end.value.code == 2
    assert f"argument --context: invalid setting value: {value!r}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", ["down", "--functions lambda", "--iam maybe", "--port http", "--environments 1.5", "--no-such-option"]
)
def test_what_does_not_exist_is_refused(arguments: str) -> None:
    with pytest.raises(SystemExit) as end:
        chosen(*arguments.split())

    assert end.value.code == 2


# What is printed


QUERYSTRING, SUBPROTOCOL = "route.request.querystring.idToken", "route.request.header.Sec-WebSocket-Protocol"


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    """Of our own template, on the port of `up`."""
    aws = LocalAws(log=tmp_path / "log")
    served = api(*OUR_ROUTES, identity_sources=(QUERYSTRING,))
    ids = {
        "AWS::Cognito::UserPool": ["us-east-1_AbCdEf123"],
        "AWS::Cognito::UserPoolClient": ["client"],
        "AWS::DynamoDB::Table": ["connections"],
    }
    yield System(
        *(Stack(Account(), served, {}, ids, {}), aws, Iam(), 4510),
        page_url="http://localhost:3000",
        page_settings={"selfSignUp": True, "allowedOrigins": []},
    )
    await aws.stop()


def lacking(system: System, types: set[str]) -> System:
    """The system of a template without resources of these types."""
    ids = {type_: ids for type_, ids in system.stack.physical_ids.items() if type_ not in types}
    return dataclasses.replace(system, stack=dataclasses.replace(system.stack, physical_ids=ids))


def test_page_comes_first(system: System) -> None:
    printed = usage(system, Options(page_port=3000))

    assert printed.startswith(
        "\nPage        http://localhost:3000        (sign up there; the code from the mail appears below)\n"
        "WebSocket   ws://127.0.0.1:4510/prod?idToken=…\n"
    )


def test_nobody_is_told_to_sign_up_where_that_is_not_open(system: System) -> None:
    settings = {"selfSignUp": False, "allowedOrigins": []}

    printed = usage(dataclasses.replace(system, page_settings=settings), Options(page_port=3000))

    assert "http://localhost:3000        (sign in there; mails to users appear below)\n" in printed
    assert "sign up" not in printed


def test_page_that_may_not_connect_is_told_with_what_to_do(system: System) -> None:
    settings = {"selfSignUp": True, "allowedOrigins": ["https://a.example.com", "http://localhost:3001"]}

    printed = usage(dataclasses.replace(system, page_settings=settings), Options(page_port=3000))

    assert "Its connections are refused, because allowedOrigins does not have http://localhost:3000.\n" in printed
    origins = "https://a.example.com,http://localhost:3001,http://localhost:3000"
    assert f"Start with --context allowedOrigins={origins}\n" in printed


def test_page_that_may_connect_is_told_without_conditions(system: System) -> None:
    settings = {"selfSignUp": True, "allowedOrigins": ["https://a.example.com", "http://localhost:3000"]}

    assert "allowedOrigins" not in usage(dataclasses.replace(system, page_settings=settings), Options(page_port=3000))


def test_stack_without_settings_for_a_page_is_told_why_there_is_none(system: System) -> None:
    without = dataclasses.replace(system, page_url=None, page_settings=None)

    assert usage(without, Options(page_port=3000)).startswith("\nNo page: the template has no output PageConfig.\n")


@pytest.mark.parametrize("changes", [{"AWS::Cognito::UserPool"}, set()], ids=["no user pool", "not asked for"])
def test_nothing_is_said_of_a_page_that_nobody_expects(system: System, changes: set[str]) -> None:
    without = dataclasses.replace(lacking(system, changes), page_url=None, page_settings=None)

    assert usage(without, Options(page_port=3000 if changes else None)).startswith("\nWebSocket   ws://")


def test_lines_to_paste_are_short_where_the_port_is_the_usual_one(system: System) -> None:
    printed = usage(system, Options())

    assert 'npx wscat -c "ws://127.0.0.1:4510/prod?idToken=$(make -s token)"' in printed
    assert '"http://127.0.0.1:4510/prod/@connections/$(make -s connection)"' in printed


def test_lines_to_paste_name_another_port(system: System) -> None:
    printed = usage(dataclasses.replace(system, port=1234), Options())

    flags = "LOCAL_FLAGS=--port=1234"
    assert f'npx wscat -c "ws://127.0.0.1:1234/prod?idToken=$(make -s token {flags})"' in printed
    assert f'"http://127.0.0.1:1234/prod/@connections/$(make -s connection {flags})"' in printed


def test_lines_to_paste_put_the_token_where_the_stack_takes_it(system: System) -> None:
    served = api(*OUR_ROUTES, identity_sources=(SUBPROTOCOL,))

    printed = usage(dataclasses.replace(system, stack=dataclasses.replace(system.stack, api=served)), Options())

    assert "WebSocket   ws://127.0.0.1:4510/prod\n" in printed
    assert '  npx wscat -c ws://127.0.0.1:4510/prod -s echo.v1 -s "idToken.$(make -s token)"\n' in printed
    assert "?idToken" not in printed


@pytest.mark.parametrize("missing", ["AWS::Cognito::UserPool", "AWS::DynamoDB::Table"])
def test_nothing_is_printed_that_the_template_has_not_got(system: System, missing: str) -> None:
    printed = usage(lacking(system, {missing}), Options())

    assert "ws://127.0.0.1:4510/prod" in printed
    assert "make -s" not in printed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clock_speed": 60}, "Connections end after 10 s idle, 120 s in all."),
        ({"limits": Limits(idle_seconds=0.5)}, "Connections end after 0.5 s idle, 7200 s in all."),
        ({"limits": Limits(connection_seconds=60), "clock_speed": 2}, "Connections end after 300 s idle, 30 s in all."),
    ],
)
def test_limits_are_printed_where_they_are_not_those_of_aws(system: System, changes: dict[str, Any], said: str) -> None:
    assert said in usage(system, Options(**changes))
    assert "Connections end" not in usage(system, Options())
