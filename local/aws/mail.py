"""Prints the mails that Cognito would send. The local AWS keeps them and sends none."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import ClientError, ClientSession, ClientTimeout

from local.progress import make_printable

POLL_SECONDS = 0.25
ANSWER_SECONDS = 5.0
TAG = re.compile("<[^>]*>")


@dataclass(frozen=True)
class Mail:
    """A mail of the user pool: a confirmation code, a code for a forgotten password, or an invitation."""

    id: str
    to: str
    subject: str
    text: str

    @classmethod
    def parse(cls, record: dict[str, Any]) -> Self:
        """Return the mail in a record of the local AWS."""
        text = record["BodyText"] or html.unescape(" ".join(TAG.sub(" ", record["BodyHtml"]).split()))
        return cls(record["MessageId"], ", ".join(record["To"]), record["Subject"], text)

    def __str__(self) -> str:
        """Return the mail as lines that cannot control a terminal."""
        lines = [f"Mail to {self.to}: {self.subject}", *(f"  {line}" for line in self.text.splitlines())]
        return "\n".join(make_printable(line) for line in lines)


async def fetch_mails(session: ClientSession, aws_url: str) -> list[Mail]:
    """Return all mails that the local AWS keeps, oldest first."""
    async with session.get(f"{aws_url}/_ministack/ses/messages") as answer:
        messages = (await answer.json())["messages"]
    records = (record for account in messages.values() for record in account)
    return [Mail.parse(record) for record in sorted(records, key=lambda record: float(record["Timestamp"]))]


async def print_mails(aws_url: str, say: Callable[[str], None]) -> None:
    """Print each mail once, until cancelled."""
    printed: set[str] = set()
    async with ClientSession(raise_for_status=True, timeout=ClientTimeout(total=ANSWER_SECONDS)) as session:
        while True:
            with suppress(ClientError, TimeoutError, ValueError):  # the next poll tries again
                for mail in await fetch_mails(session, aws_url):
                    if mail.id not in printed:
                        printed.add(mail.id)
                        say(str(mail))
            await asyncio.sleep(POLL_SECONDS)
