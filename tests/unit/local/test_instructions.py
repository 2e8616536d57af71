"""What `make up` prints when everything runs, for our own stack and for other templates."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from local.apigateway.limits import Limits
from local.aws.account import Account
from local.aws.ministack import LocalAws
from local.cloudformation.stack import Stack
from local.instructions import write_instructions
from local.system import Options, System
from tests.fixtures.apis import AUTHORIZER_ARN, OUR_ROUTES, WEBSOCKET_ARN, api, function

QUERYSTRING, SUBPROTOCOL = "route.request.querystring.idToken", "route.request.header.Sec-WebSocket-Protocol"
POOL, APP_CLIENT, TABLE = "AWS::Cognito::UserPool", "AWS::Cognito::UserPoolClient", "AWS::DynamoDB::Table"
IDS = {POOL: ["us-east-1_AbCdEf123"], APP_CLIENT: ["client"], TABLE: ["connections"]}
OURS = {"CREDENTIAL_MODE": "querystring"}
OUR_TABLE = {"CONNECTION_TABLE_NAME": "connections"}
PAGE = {"selfSignUp": True, "allowedOrigins": []}

Build = Callable[..., System]


@pytest.fixture
async def build(tmp_path: Path) -> AsyncIterator[Build]:
    """Build systems on the port of `up`, by default with our own template."""
    aws = LocalAws(log=tmp_path / "log")

    def build_system(
        sources: Sequence[str] = (QUERYSTRING,),
        authorizer: dict[str, str] = OURS,
        websocket: dict[str, str] = OUR_TABLE,
        types: Sequence[str] = tuple(IDS),
        **changes: Any,
    ) -> System:
        functions = {
            arn: function(arn=arn, environment=environment)
            for arn, environment in ((AUTHORIZER_ARN, authorizer), (WEBSOCKET_ARN, websocket))
        }
        served = api(*OUR_ROUTES, identity_sources=tuple(sources))
        stack = Stack(Account(), served, functions, {type_: IDS[type_] for type_ in types}, {})
        others: Any = None  # parts that no test here uses
        system = System(
            *(stack, others, others, aws, others, others, others, 4510, 0.0),
            page_url="http://localhost:3000",
            page_settings=PAGE,
        )
        return dataclasses.replace(system, **changes)

    yield build_system
    await aws.stop()


def write(system: System, no_token: str | None = None, **options: Any) -> str:
    return write_instructions(system, Options(**options), user="ada@example.com", no_token=no_token)


def find_commands(system: System) -> list[str]:
    block = write(system).partition("In another terminal, from here:\n")[2].partition("\n\n")[0]
    return [line.strip() for line in block.splitlines()]


# The page


def test_page_comes_first(build: Build) -> None:
    assert write(build(), page_port=3000).startswith(
        "\nPage        http://localhost:3000        (sign up there; the code from the mail appears below)\n"
        "WebSocket   ws://127.0.0.1:4510/prod?idToken=…\n"
    )


def test_inspector_follows_the_page(build: Build) -> None:
    printed = write(build(inspector_url="http://localhost:3001"), page_port=3000)

    line = "Inspector   http://localhost:3001        (what happens to each connection, live)\n"
    assert f"(sign up there; the code from the mail appears below)\n{line}WebSocket   ws://" in printed
    assert "Inspector" not in write(build(), page_port=3000)


def test_sign_in_is_suggested_where_sign_up_is_disabled(build: Build) -> None:
    printed = write(build(page_settings={"selfSignUp": False, "allowedOrigins": []}), page_port=3000)

    assert "http://localhost:3000        (sign in there; mails to users appear below)\n" in printed
    assert "sign up" not in printed


def test_page_with_an_origin_that_is_not_allowed_gets_advice(build: Build) -> None:
    settings = {"selfSignUp": True, "allowedOrigins": ["https://a.example.com", "http://localhost:3001"]}

    printed = write(build(page_settings=settings), page_port=3000)

    assert "Its connections are refused, because allowedOrigins does not have http://localhost:3000.\n" in printed
    origins = "https://a.example.com,http://localhost:3001,http://localhost:3000"
    assert f"Start with --context allowedOrigins={origins}\n" in printed


def test_page_with_an_allowed_origin_gets_no_advice(build: Build) -> None:
    settings = {"selfSignUp": True, "allowedOrigins": ["https://a.example.com", "http://localhost:3000"]}

    assert "allowedOrigins" not in write(build(page_settings=settings), page_port=3000)


def test_stack_without_settings_for_a_page_says_why_no_page_is_served(build: Build) -> None:
    printed = write(build(page_url=None, page_settings=None), page_port=3000)

    assert printed.startswith("\nNo page: the template has no output PageConfig.\n")


@pytest.mark.parametrize(("types", "page_port"), [((TABLE,), 3000), (tuple(IDS), None)])
def test_missing_page_is_not_mentioned_if_it_was_not_expected(
    build: Build, types: tuple[str, ...], page_port: int | None
) -> None:
    printed = write(build(types=types, page_url=None, page_settings=None), page_port=page_port)

    assert printed.startswith("\nWebSocket   ws://")


# Lines to paste, of our own stack


def test_lines_to_paste_are_short_where_the_port_is_the_usual_one(build: Build) -> None:
    assert find_commands(build()) == [
        'npx wscat -c "ws://127.0.0.1:4510/prod?idToken=$(make -s token)"',
        "curl -i -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' \\",
        "-H 'Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==' http://127.0.0.1:4510/prod",
        "make -s post MESSAGE='hello from outside'",
    ]


def test_lines_to_paste_name_another_port(build: Build) -> None:
    system = build(port=1234)

    flags = "LOCAL_FLAGS=--port=1234"
    assert f"Token       make -s token {flags} " in write(system)
    assert f"Users       make user EMAIL=bob@example.com {flags}\n" in write(system)
    wscat, *_, post = find_commands(system)
    assert wscat == f'npx wscat -c "ws://127.0.0.1:1234/prod?idToken=$(make -s token {flags})"'
    assert post == f"make -s post MESSAGE='hello from outside' {flags}"


def test_lines_to_paste_put_the_token_where_the_stack_takes_it(build: Build) -> None:
    system = build(sources=[SUBPROTOCOL], authorizer={"CREDENTIAL_MODE": "subprotocol"})

    assert "WebSocket   ws://127.0.0.1:4510/prod\n" in write(system)
    assert find_commands(system)[0] == 'npx wscat -c ws://127.0.0.1:4510/prod -s echo.v1 -s "idToken.$(make -s token)"'
    assert "?idToken" not in write(system)


def test_lines_to_paste_have_an_origin_that_may_connect(build: Build) -> None:
    origins = "https://a.example.com http://localhost:3000"

    wscat, _, curl, _ = find_commands(build(authorizer={**OURS, "ALLOWED_ORIGINS": origins}))

    assert wscat.endswith('idToken=$(make -s token)" -o https://a.example.com')
    assert " -H 'Origin: https://a.example.com' http://" in curl


def test_group_that_may_connect_is_named(build: Build) -> None:
    printed = write(build(authorizer={**OURS, "REQUIRED_GROUP": "staff"}))

    assert "(an ID token of ada@example.com in the group staff, by SRP)\n" in printed
    assert "Users       make user EMAIL=bob@example.com GROUP=staff\n" in printed


# Lines to paste, of other templates


@pytest.mark.parametrize(
    ("sources", "address", "wscat"),
    [
        (["route.request.querystring.Auth"], "?Auth=…", "-c 'ws://127.0.0.1:4510/prod?Auth=…'"),
        (["route.request.header.Auth"], "", "-c ws://127.0.0.1:4510/prod -H 'Auth: …'"),
        (
            ["route.request.querystring.a b", "route.request.querystring.c", "route.request.header.X-D"],
            "?a%20b=…&c=…",
            "-c 'ws://127.0.0.1:4510/prod?a%20b=…&c=…' -H 'X-D: …'",
        ),
        ([SUBPROTOCOL], "", "-c ws://127.0.0.1:4510/prod -s …"),
        (["route.request.header.Origin"], "", "-c ws://127.0.0.1:4510/prod -o …"),
        (["stageVariables.stage", "context.connectionId"], "", "-c ws://127.0.0.1:4510/prod"),
        ([], "", "-c ws://127.0.0.1:4510/prod"),
    ],
)
def test_value_for_another_authorizer_is_left_to_fill_in(
    build: Build, sources: list[str], address: str, wscat: str
) -> None:
    system = build(sources, authorizer={}, websocket={})

    assert f"WebSocket   ws://127.0.0.1:4510/prod{address}\n" in write(system)
    assert find_commands(system)[0] == f"npx wscat {wscat}"
    assert "idToken" not in write(system)


def test_connection_id_is_left_to_fill_in_without_a_known_table(build: Build) -> None:
    assert find_commands(build(websocket={}))[-1] == "make -s post MESSAGE='hello from outside' CONNECTION=…"


def test_query_string_named_as_ours_takes_an_id_token_too(build: Build) -> None:
    system = build([QUERYSTRING], authorizer={}, websocket={})

    assert find_commands(system)[0] == 'npx wscat -c "ws://127.0.0.1:4510/prod?idToken=$(make -s token)"'


def test_template_without_a_user_pool_prints_no_user_commands(build: Build) -> None:
    system = build(types=[TABLE], authorizer={}, sources=["route.request.querystring.key"])

    printed = write(system, no_token="the template has no user pool")

    assert "Token" not in printed
    assert "make user" not in printed
    assert "make -s token" not in printed


def test_reason_is_printed_if_the_user_cannot_sign_in(build: Build) -> None:
    printed = write(build(), no_token="the template has no app client")

    assert "Token       none: the template has no app client\n" in printed
    assert "make -s token" not in printed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clock_speed": 60}, "Connections end after 10 s idle, 120 s in all."),
        ({"limits": Limits(idle_seconds=0.5)}, "Connections end after 0.5 s idle, 7200 s in all."),
        ({"limits": Limits(connection_seconds=60), "clock_speed": 2}, "Connections end after 300 s idle, 30 s in all."),
    ],
)
def test_limits_are_printed_if_they_differ_from_those_of_aws(build: Build, changes: dict[str, Any], said: str) -> None:
    assert said in write(build(), **changes)
    assert "Connections end" not in write(build())
