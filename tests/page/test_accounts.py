"""Sign-up, sign-in and new passwords. Cognito's errors are shown next to the fields that they concern.

A sign-up without errors is in test_keyboard.py.
"""

from __future__ import annotations

import re

import pytest
from playwright.async_api import BrowserContext, expect

from tests.page.browser import Console
from tests.page.echo_page import EchoPage
from tests.page.local_run import PASSWORD, LocalRun, User, make_address

pytestmark = pytest.mark.asyncio(loop_scope="package")

NEW_PASSWORD = "Another-horse-8"
WRONG_CODE = "000000"  # ministack never mails this one


# Sign up


async def test_refused_sign_up_shows_the_error_at_the_field_that_caused_it(
    local_run: LocalRun, context: BrowserContext
) -> None:
    user = await local_run.add_user()
    page = await EchoPage.open(context, local_run)
    await page.get_button("Sign up").click()
    for rule in ("12 characters", "a lowercase letter", "an uppercase letter", "a digit", "a symbol"):
        await expect(page.password).to_have_accessible_description(re.compile(re.escape(f"{rule} (not met)")))

    await page.submit("Sign up", {page.email: make_address(), page.password: "correct-horse-7"})
    await page.expect_error(page.password, "The password does not meet the rules.")
    await expect(page.password).to_have_accessible_description(re.compile(r"an uppercase letter \(not met\)"))
    await expect(page.password).to_have_accessible_description(re.compile(r"12 characters \(met\)"))
    await page.expect_accessible()

    await page.submit("Sign up", {page.email: user.email, page.password: PASSWORD})
    await page.expect_error(page.email, "This address has an account. Sign in.")


async def test_unconfirmed_user_who_signs_in_is_asked_for_the_code_and_can_get_a_new_one(
    local_run: LocalRun, context: BrowserContext
) -> None:
    email = await local_run.sign_up()
    page = await EchoPage.open(context, local_run)

    await page.sign_in(User(email, id=""))
    await page.submit("Confirm", {page.code: WRONG_CODE})
    await page.expect_error(page.code, "This code is wrong.")
    await page.expect_accessible()
    await page.get_button("Send a new code").click()
    await expect(page.tab.get_by_role("status")).to_have_text(f"A new code is on its way to {email}.")
    await page.expect_accessible()

    await page.submit("Confirm", {page.code: await local_run.wait_for_code(email, count=2)})
    await page.expect_state("Connected")


# Sign in


async def test_empty_fields_show_an_error(local_run: LocalRun, context: BrowserContext) -> None:
    page = await EchoPage.open(context, local_run)

    await page.get_button("Sign in").click()

    await page.expect_error(page.email, "Enter your email.")
    await expect(page.password).to_have_accessible_description("Enter your password.")
    await page.expect_accessible()


async def test_user_created_by_an_administrator_must_choose_a_password(
    local_run: LocalRun, context: BrowserContext
) -> None:
    email = make_address()
    await local_run.administer("admin_create_user", email, TemporaryPassword=PASSWORD, MessageAction="SUPPRESS")
    page = await EchoPage.open(context, local_run)

    await page.sign_in(User(email, id=""))
    await expect(page.new_password).to_be_focused()
    await page.expect_accessible()
    await page.submit("Set password", {page.new_password: NEW_PASSWORD})

    await page.expect_state("Connected")


async def test_second_factor_shows_that_the_page_does_not_support_it(
    proxied_run: LocalRun, context: BrowserContext
) -> None:
    user = await proxied_run.add_user()
    await proxied_run.require_second_factor(user)
    page = await EchoPage.open(context, proxied_run)

    await page.sign_in(user)

    alert = page.tab.get_by_role("alert")
    await expect(alert).to_contain_text("a code from an authenticator app, which this page does not offer")
    await page.expect_accessible()
    await page.get_button("Back to sign in").click()
    await expect(page.email).to_have_value(user.email)


async def test_unreachable_cognito_shows_an_error_with_its_address(
    local_run: LocalRun, context: BrowserContext, console: Console
) -> None:
    console.expected.append(re.compile(r"Failed to load resource: net::ERR_FAILED"))
    address = local_run.settings["userPoolEndpoint"]
    user = await local_run.add_user()
    page = await EchoPage.open(context, local_run)
    await context.route(address, lambda route: route.abort())

    await page.sign_in(user)
    await expect(page.tab.get_by_role("alert")).to_contain_text(f"Cognito did not answer at {address}.")
    await page.expect_accessible()
    await context.unroute(address)
    await page.get_button("Sign in").click()

    await page.expect_state("Connected")


# A new password


async def test_forgotten_password_is_replaced_with_the_mailed_code(
    local_run: LocalRun, context: BrowserContext
) -> None:
    user = await local_run.add_user()
    page = await EchoPage.open(context, local_run)
    await page.email.fill(user.email)

    await page.get_button("Forgotten password?").click()
    await expect(page.email).to_have_value(user.email)
    await page.expect_accessible()
    await page.get_button("Send code").click()
    await expect(page.code).to_be_focused()
    await page.expect_accessible()
    await page.submit("Set password", {page.code: WRONG_CODE, page.new_password: NEW_PASSWORD})
    await page.expect_error(page.code, "This code is wrong.")
    await page.submit("Set password", {page.code: await local_run.wait_for_code(user.email)})

    await page.expect_state("Connected")
    await page.get_button("Sign out").click()
    await page.sign_in(user)
    await page.expect_error(page.password, "Wrong email address or password.")


async def test_user_whose_password_an_administrator_reset_is_asked_for_a_new_one(
    local_run: LocalRun, context: BrowserContext
) -> None:
    user = await local_run.add_user()
    await local_run.administer("admin_reset_user_password", user.email)
    page = await EchoPage.open(context, local_run)

    await page.sign_in(user)
    code = await local_run.wait_for_code(user.email)
    await page.submit("Set password", {page.code: code, page.new_password: NEW_PASSWORD})

    await page.expect_state("Connected")
