"""Accounts: everything that leads to a session, and Cognito's errors next to the fields that they concern."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import BrowserContext, expect

from tests.page.browser import Console
from tests.page.desk import PASSWORD, Desk, User, new_address
from tests.page.echo_page import EchoPage

pytestmark = pytest.mark.asyncio(loop_scope="package")

NEW_PASSWORD = "Another-horse-8"
WRONG_CODE = "000000"  # ministack mails others


# Sign up


async def test_new_user_signs_up_confirms_gets_an_echo_and_signs_out(desk: Desk, context: BrowserContext) -> None:
    email = new_address()
    page = await EchoPage.open(context, desk)
    await page.expect_accessible()

    await page.button("Sign up").click()
    await page.expect_accessible()
    await page.submit("Sign up", {page.email: email, page.password: PASSWORD})
    await expect(page.code).to_be_focused()
    await page.expect_accessible()
    await page.submit("Confirm", {page.code: await desk.code_mailed_to(email)})

    await page.expect_state("Connected")
    await expect(page.tab.get_by_text(f"Signed in as {email}")).to_be_visible()
    user = await desk.user(email)
    assert len(await desk.connections_of(user)) == 1
    await page.expect_accessible()
    await page.send("hello")
    await page.expect_echo("hello")

    await page.button("Sign out").click()

    await expect(page.password).to_be_visible()
    await desk.until_connections(user, 0)


async def test_password_rules_are_shown_and_the_broken_ones_are_told(desk: Desk, context: BrowserContext) -> None:
    page = await EchoPage.open(context, desk)
    await page.button("Sign up").click()
    for rule in ("12 characters", "a lowercase letter", "an uppercase letter", "a digit", "a symbol"):
        await expect(page.password).to_have_accessible_description(re.compile(re.escape(f"{rule} (not met)")))

    await page.submit("Sign up", {page.email: new_address(), page.password: "correct-horse-7"})

    await page.expect_error(page.password, "The password does not meet the rules.")
    await expect(page.password).to_have_accessible_description(re.compile(r"an uppercase letter \(not met\)"))
    await expect(page.password).to_have_accessible_description(re.compile(r"12 characters \(met\)"))
    await page.expect_accessible()


async def test_address_that_has_an_account_is_told(desk: Desk, context: BrowserContext) -> None:
    user = await desk.add_user()
    page = await EchoPage.open(context, desk)
    await page.button("Sign up").click()

    await page.submit("Sign up", {page.email: user.email, page.password: PASSWORD})

    await page.expect_error(page.email, "This address has an account. Sign in.")


async def test_wrong_code_is_told_and_a_new_one_is_mailed(desk: Desk, context: BrowserContext) -> None:
    email = await desk.sign_up()
    page = await EchoPage.open(context, desk)
    await page.sign_in(User(email, id=""))

    await page.submit("Confirm", {page.code: WRONG_CODE})
    await page.expect_error(page.code, "This code is wrong.")
    await page.expect_accessible()
    await page.button("Send a new code").click()
    await expect(page.tab.get_by_role("status")).to_have_text(f"A new code is on its way to {email}.")
    await page.expect_accessible()

    await page.submit("Confirm", {page.code: await desk.code_mailed_to(email, count=2)})
    await page.expect_state("Connected")


async def test_page_of_a_closed_user_pool_offers_no_sign_up(restricted_desk: Desk, context: BrowserContext) -> None:
    page = await EchoPage.open(context, restricted_desk)

    await expect(page.button("Sign in")).to_be_visible()
    await expect(page.tab.get_by_text("Sign up")).to_have_count(0)


# Sign in


async def test_empty_fields_are_told(desk: Desk, context: BrowserContext) -> None:
    page = await EchoPage.open(context, desk)

    await page.button("Sign in").click()

    await page.expect_error(page.email, "Enter your email.")
    await expect(page.password).to_have_accessible_description("Enter your password.")
    await page.expect_accessible()


async def test_wrong_password_is_told(desk: Desk, context: BrowserContext) -> None:
    user = await desk.add_user()
    page = await EchoPage.open(context, desk)

    await page.submit("Sign in", {page.email: user.email, page.password: NEW_PASSWORD})

    await page.expect_error(page.password, "Wrong email address or password.")
    await page.expect_accessible()


async def test_unconfirmed_user_who_signs_in_is_led_to_the_code(desk: Desk, context: BrowserContext) -> None:
    email = await desk.sign_up()
    page = await EchoPage.open(context, desk)

    await page.sign_in(User(email, id=""))
    await page.submit("Confirm", {page.code: await desk.code_mailed_to(email)})

    await page.expect_state("Connected")


async def test_user_made_by_an_administrator_must_choose_a_password(desk: Desk, context: BrowserContext) -> None:
    email = new_address()
    await desk.administer("admin_create_user", email, TemporaryPassword=PASSWORD, MessageAction="SUPPRESS")
    page = await EchoPage.open(context, desk)

    await page.sign_in(User(email, id=""))
    await expect(page.new_password).to_be_focused()
    await page.expect_accessible()
    await page.submit("Set password", {page.new_password: NEW_PASSWORD})

    await page.expect_state("Connected")


async def test_second_factor_is_named_as_what_the_page_does_not_offer(
    proxied_desk: Desk, context: BrowserContext
) -> None:
    user = await proxied_desk.add_user()
    await proxied_desk.require_second_factor(user)
    page = await EchoPage.open(context, proxied_desk)

    await page.sign_in(user)

    alert = page.tab.get_by_role("alert")
    await expect(alert).to_contain_text("a code from an authenticator app, which this page does not offer")
    await page.expect_accessible()
    await page.button("Back to sign in").click()
    await expect(page.email).to_have_value(user.email)


async def test_unreachable_cognito_is_told_with_its_address(
    desk: Desk, context: BrowserContext, console: Console
) -> None:
    console.expected.append(re.compile(r"Failed to load resource: net::ERR_FAILED"))
    address = desk.settings["userPoolEndpoint"]
    user = await desk.add_user()
    page = await EchoPage.open(context, desk)
    await context.route(address, lambda route: route.abort())

    await page.sign_in(user)
    await expect(page.tab.get_by_role("alert")).to_contain_text(f"Cognito did not answer at {address}.")
    await page.expect_accessible()
    await context.unroute(address)
    await page.button("Sign in").click()

    await page.expect_state("Connected")


# A new password


async def test_forgotten_password_is_replaced_with_the_mailed_code(desk: Desk, context: BrowserContext) -> None:
    user = await desk.add_user()
    page = await EchoPage.open(context, desk)
    await page.email.fill(user.email)

    await page.button("Forgotten password?").click()
    await expect(page.email).to_have_value(user.email)
    await page.expect_accessible()
    await page.button("Send code").click()
    await expect(page.code).to_be_focused()
    await page.expect_accessible()
    await page.submit("Set password", {page.code: WRONG_CODE, page.new_password: NEW_PASSWORD})
    await page.expect_error(page.code, "This code is wrong.")
    await page.submit("Set password", {page.code: await desk.code_mailed_to(user.email)})

    await page.expect_state("Connected")
    await page.button("Sign out").click()
    await page.sign_in(user)
    await page.expect_error(page.password, "Wrong email address or password.")


async def test_user_whose_password_was_reset_by_an_administrator_is_led_to_a_new_one(
    desk: Desk, context: BrowserContext
) -> None:
    user = await desk.add_user()
    await desk.administer("admin_reset_user_password", user.email)
    page = await EchoPage.open(context, desk)

    await page.sign_in(user)
    code = await desk.code_mailed_to(user.email)
    await page.submit("Set password", {page.code: code, page.new_password: NEW_PASSWORD})

    await page.expect_state("Connected")
