"""The mails of the local user pool: each is printed once, with its code."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from local.aws import mail
from local.aws.mail import Mail
from local.aws.ministack import LocalAws
from local.aws.resources import create_resources
from local.cloudformation.template import Template
from tests.fixtures.gateway import PATIENCE_SECONDS
from tests.fixtures.network import Answer, LoopbackServer

PASSWORD = "correct-Horse-battery-1"
OTHER_PASSWORD = "another-Horse-battery-2"
LOOP = pytest.mark.asyncio(loop_scope="module")


class UserPool:
    """The user pool of our own stack, and what users and administrators do with it."""

    def __init__(self, aws: LocalAws, template: Template) -> None:
        self.cognito = aws.client("cognito-idp")
        for logical_id, resource in template.resources.items():
            match resource["Type"]:
                case "AWS::Cognito::UserPool":
                    self.id = template.physical_ids[logical_id]
                case "AWS::Cognito::UserPoolClient":
                    self.app_client_id = template.physical_ids[logical_id]

    def sign_up(self, email: str) -> None:
        self.cognito.sign_up(ClientId=self.app_client_id, Username=email, Password=PASSWORD)

    def confirm(self, email: str, code: str) -> None:
        self.cognito.confirm_sign_up(ClientId=self.app_client_id, Username=email, ConfirmationCode=code)

    def resend(self, email: str) -> None:
        self.cognito.resend_confirmation_code(ClientId=self.app_client_id, Username=email)

    def forget_password(self, email: str) -> None:
        self.cognito.forgot_password(ClientId=self.app_client_id, Username=email)

    def replace_password(self, email: str, code: str) -> None:
        self.cognito.confirm_forgot_password(
            ClientId=self.app_client_id, Username=email, ConfirmationCode=code, Password=OTHER_PASSWORD
        )

    def invite(self, email: str, **options: str) -> None:
        self.cognito.admin_create_user(UserPoolId=self.id, Username=email, **options)

    def status(self, email: str) -> str:
        return str(self.cognito.admin_get_user(UserPoolId=self.id, Username=email)["UserStatus"])


@pytest.fixture(scope="module")
def user_pool(aws: LocalAws, own_template: Path) -> UserPool:
    template = Template.read(own_template)
    template = template.with_physical_ids(create_resources(template, aws).physical_ids)
    return UserPool(aws, template)


Mails = asyncio.Queue[str]


async def watch(url: str) -> AsyncIterator[Mails]:
    printed_mails: Mails = asyncio.Queue()
    watcher = asyncio.create_task(mail.print_mails(url, printed_mails.put_nowait))
    yield printed_mails
    assert not watcher.done()
    watcher.cancel()
    await asyncio.wait([watcher])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def printed_mails(aws: LocalAws) -> AsyncIterator[Mails]:
    """The mails that were printed, in order."""
    async for each in watch(aws.url):
        yield each


async def get_next(printed_mails: Mails) -> str:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await printed_mails.get()


async def get_code(printed_mails: Mails, email: str) -> str:
    """Return the code in the next mail, which must be to this address."""
    text = await get_next(printed_mails)
    assert text.startswith(f"Mail to {email}: ")
    (code,) = re.findall(r"\b\d{6}\b", text)
    return str(code)


async def run_in_thread(act: Callable[..., None], *arguments: str, **options: str) -> None:
    await asyncio.to_thread(act, *arguments, **options)


# What the user pool sends


@LOOP
async def test_code_of_a_sign_up_is_printed_and_confirms_it(user_pool: UserPool, printed_mails: Mails) -> None:
    await run_in_thread(user_pool.sign_up, "ann@example.com")

    code = await get_code(printed_mails, "ann@example.com")

    await run_in_thread(user_pool.confirm, "ann@example.com", code)
    assert user_pool.status("ann@example.com") == "CONFIRMED"


@LOOP
async def test_code_that_is_sent_again_is_printed_again(user_pool: UserPool, printed_mails: Mails) -> None:
    await run_in_thread(user_pool.sign_up, "ben@example.com")
    await get_code(printed_mails, "ben@example.com")
    await run_in_thread(user_pool.resend, "ben@example.com")

    code = await get_code(printed_mails, "ben@example.com")

    await run_in_thread(user_pool.confirm, "ben@example.com", code)
    assert user_pool.status("ben@example.com") == "CONFIRMED"


@LOOP
async def test_code_for_a_forgotten_password_is_printed_and_lets_it_be_replaced(
    user_pool: UserPool, printed_mails: Mails
) -> None:
    await run_in_thread(user_pool.sign_up, "cat@example.com")
    sign_up = await get_code(printed_mails, "cat@example.com")
    await run_in_thread(user_pool.confirm, "cat@example.com", sign_up)
    await run_in_thread(user_pool.forget_password, "cat@example.com")

    code = await get_code(printed_mails, "cat@example.com")

    assert code != sign_up
    await run_in_thread(user_pool.replace_password, "cat@example.com", code)


@LOOP
@pytest.mark.parametrize("again", [False, True], ids=["once", "once more"])
async def test_invitation_is_printed_with_the_password_that_signs_in(
    user_pool: UserPool, printed_mails: Mails, again: bool
) -> None:
    email = f"dan{again:d}@example.com"
    await run_in_thread(user_pool.invite, email)
    if again:
        await get_next(printed_mails)
        await run_in_thread(user_pool.invite, email, MessageAction="RESEND")

    text = await get_next(printed_mails)

    assert text.startswith(f"Mail to {email}: ")
    name, password = re.findall(r"Your username is (\S+) and temporary password is (\S+)\.$", text)[0]
    assert name == email
    assert await asyncio.to_thread(get_challenge, user_pool, email, password) == "NEW_PASSWORD_REQUIRED"


def get_challenge(user_pool: UserPool, email: str, password: str) -> str:
    """Return the challenge that a sign-in with this password gets."""
    flows = user_pool.cognito.create_user_pool_client(
        UserPoolId=user_pool.id, ClientName="administrator", ExplicitAuthFlows=["ALLOW_ADMIN_USER_PASSWORD_AUTH"]
    )
    answer = user_pool.cognito.admin_initiate_auth(
        UserPoolId=user_pool.id,
        ClientId=flows["UserPoolClient"]["ClientId"],
        AuthFlow="ADMIN_USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": email, "PASSWORD": password},
    )
    return str(answer["ChallengeName"])


@LOOP
async def test_code_of_a_reset_by_an_administrator_is_printed(user_pool: UserPool, printed_mails: Mails) -> None:
    await run_in_thread(user_pool.sign_up, "eve@example.com")
    await run_in_thread(user_pool.confirm, "eve@example.com", await get_code(printed_mails, "eve@example.com"))
    await asyncio.to_thread(
        user_pool.cognito.admin_reset_user_password, UserPoolId=user_pool.id, Username="eve@example.com"
    )

    code = await get_code(printed_mails, "eve@example.com")

    await run_in_thread(user_pool.replace_password, "eve@example.com", code)


@LOOP
async def test_address_cannot_control_the_terminal(user_pool: UserPool, printed_mails: Mails) -> None:
    await run_in_thread(user_pool.sign_up, "\x1b[2J\x07\u202efay\x9b@example.com")

    text = await get_next(printed_mails)

    assert text.startswith("Mail to \\x1b[2J\\x07\\u202efay\\x9b@example.com: ")
    assert [character for character in text if not character.isprintable()] == ["\n"]


# A mail


def record(number: int, **changes: Any) -> dict[str, Any]:
    """Return a mail's record in the local AWS."""
    facts = {"MessageId": str(number), "To": ["jane@example.com"], "Subject": "A code", "Timestamp": number}
    return {**facts, "BodyText": f"It is {number}", "BodyHtml": "", **changes}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "Mail to jane@example.com: A code\n  It is 7"),
        ({"BodyText": "It is\n\n7\r\n"}, "Mail to jane@example.com: A code\n  It is\n\n  7"),
        (
            {"BodyText": "", "BodyHtml": "<p>It&nbsp;is <b>7</b>,<br>not 8 &lt; 9</p>"},
            "Mail to jane@example.com: A code\n  It is 7 , not 8 < 9",
        ),
        (
            {"To": ["jane@example.com", "bob@example.com"]},
            "Mail to jane@example.com, bob@example.com: A code\n  It is 7",
        ),
        ({"To": ["a\nMail to b@example.com"]}, "Mail to a Mail to b@example.com: A code\n  It is 7"),
        ({"Subject": "A\x1b[31m code\n"}, "Mail to jane@example.com: A\\x1b[31m code\n  It is 7"),
        ({"BodyText": "It is\u2028\x1b]0;7\ud800"}, "Mail to jane@example.com: A code\n  It is\n  \\x1b]0;7\\ud800"),
    ],
)
def test_mail_is_shown_as_text_that_cannot_control_a_terminal(changes: dict[str, Any], text: str) -> None:
    assert str(Mail.parse(record(7, **changes))) == text


# A local AWS that does not answer well


def answer_with_mails(*records: dict[str, Any]) -> Answer:
    body = json.dumps({"messages": {"000000000000": records}}).encode()
    return Answer(headers={"Content-Type": "application/json"}, body=[body])


async def wait_for_requests(server: LoopbackServer, times: int) -> None:
    """Wait until the server has received so many more requests."""
    count = len(server.requests) + times
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(server.requests) < count:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "failed_poll",
    [
        Answer(500, headers={"Content-Type": "application/json"}, body=[b'{"message": "not now"}']),
        Answer(headers={"Content-Type": "application/json"}, body=[b"{"]),
        Answer(headers={"Content-Type": "text/html"}, body=[b"<html>"]),
        Answer(headers={"Content-Length": "10"}, body=[b"short"]),
    ],
    ids=["error", "half of it", "other type", "cut off"],
)
async def test_mail_is_printed_once_after_a_failed_poll(monkeypatch: pytest.MonkeyPatch, failed_poll: Answer) -> None:
    monkeypatch.setattr(mail, "POLL_SECONDS", 0.01)
    with LoopbackServer(failed_poll) as server:
        async for printed_mails in watch(server.url):
            await wait_for_requests(server, 2)
            server.answer = answer_with_mails(record(2), record(1))
            assert [await get_next(printed_mails), await get_next(printed_mails)] == [
                str(Mail.parse(record(each))) for each in (1, 2)
            ]

            server.answer = failed_poll
            await wait_for_requests(server, 2)
            server.answer = answer_with_mails(record(1), record(2), record(3))
            assert await get_next(printed_mails) == str(Mail.parse(record(3)))
            await wait_for_requests(server, 2)
            assert printed_mails.empty()
