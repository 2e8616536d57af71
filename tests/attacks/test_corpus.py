"""Run the corpus against the authorizer: all cases in this process, one of each family in Lambda's runtime."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from operator import attrgetter
from types import ModuleType
from typing import Any

import pytest

from tests.attacks.corpus import ALSO_OFFERED, CASES, FAMILIES, FORGED, IMPOSSIBLE, SOUND
from tests.attacks.forgery import ALLOW, CONFIGURATIONS, ERROR, Case, Pool
from tests.fixtures.emulator import Emulate, Emulator
from tests.fixtures.events import METHOD_ARN
from tests.fixtures.functions import AUTHORIZER
from tests.fixtures.network import LoopbackServer
from tests.fixtures.tokens import JWKS_ENDPOINT, JWKS_PATH

DENY = (
    '{"principalId": "anonymous", "policyDocument": {"Version": "2012-10-17", "Statement": [{"Action": '
    f'"execute-api:Invoke", "Effect": "Deny", "Resource": "{METHOD_ARN}"}}]}}, "context": {{}}}}'
)
# Reasons that need a key. All others are found before a key is looked up, except for a payload that is not JSON.
REASONS_AFTER_LOOK_UP = (
    "unknown_kid",
    "bad_signature",
    "missing_claim",
    "invalid_claim",
    "expired_token",
    "missing_group",
)

pytestmark = pytest.mark.filterwarnings("ignore:Key size should be:joserfc.errors.SecurityWarning")


def get_verdict(answer: Any) -> str:
    """Return "Deny" for the exact expected Deny, "Allow" for an Allow of this method only, else the answer's repr."""
    if json.dumps(answer) == DENY:
        return "Deny"
    if not isinstance(answer, dict) or set(answer) != {"principalId", "policyDocument", "context"}:
        return f"{answer!r:.200}"
    statements = answer["policyDocument"]["Statement"]
    allowed = [{"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": METHOD_ARN}]
    return ALLOW if statements == allowed and answer["context"]["userId"] == answer["principalId"] else repr(answer)


def is_key_needed(case: Case) -> bool:
    is_payload = case.name.removeprefix("offer-").startswith("payload-json-")
    return is_payload or case.expected.startswith(REASONS_AFTER_LOOK_UP)


@pytest.fixture(autouse=True)
def fail_on_requests_to_the_attacker(attacker: LoopbackServer) -> Iterator[None]:
    """Fail a test in which the authorizer follows a `jku`, `x5u`, `kid` or `iss` to the attacker's server."""
    yield
    assert attacker.requests == []


def test_corpus_is_complete_and_its_names_are_unique() -> None:
    assert len(FORGED) >= 1015
    assert len(SOUND) >= 72
    assert len(IMPOSSIBLE) >= 33
    assert [name for name, count in Counter(case.name for case in CASES).items() if count > 1] == []
    assert {f"offer-{name}" for name in ALSO_OFFERED} <= {case.name for case in CASES}


# In this process


@pytest.fixture
def authorize(imported_authorizer: ModuleType, published: LoopbackServer) -> Any:
    """Return a function that sends a case's event to a new execution environment and returns the answer."""
    published.requests.clear()

    def authorize_case(case: Case, pool: Pool) -> Any:
        environ = {**AUTHORIZER, **CONFIGURATIONS[case.configuration].variables, JWKS_ENDPOINT: published.url}
        handler = imported_authorizer.Authorizer(imported_authorizer.Settings.read(environ))
        return handler(case.build_event(pool), None)

    return authorize_case


@pytest.mark.parametrize("case", FORGED, ids=attrgetter("name"))
def test_forged_case_is_denied_with_its_reason(
    authorize: Any, pool: Pool, published: LoopbackServer, caplog: pytest.LogCaptureFixture, case: Case
) -> None:
    answer = authorize(case, pool)

    assert [vars(record).get("reason") for record in caplog.records] == [case.expected]
    assert get_verdict(answer) == "Deny"
    assert [request.path for request in published.requests] == [JWKS_PATH] * is_key_needed(case)


@pytest.mark.parametrize("case", SOUND, ids=attrgetter("name"))
def test_sound_case_is_allowed(authorize: Any, pool: Pool, case: Case) -> None:
    assert get_verdict(authorize(case, pool)) == ALLOW


@pytest.mark.parametrize("case", IMPOSSIBLE, ids=attrgetter("name"))
def test_event_that_api_gateway_never_sends_is_an_error(authorize: Any, pool: Pool, case: Case) -> None:
    with pytest.raises((AttributeError, LookupError, TypeError, ValueError)):
        authorize(case, pool)


# In Lambda's runtime


def pick_sample(configuration: str) -> list[Case]:
    """Return the first case of each family in this configuration."""
    in_configuration = (
        [case for case in family if case.configuration == configuration] for family in FAMILIES.values()
    )
    return [cases[0] for cases in in_configuration if cases]


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_answers_are_the_same_in_the_runtime(
    emulate: Emulate, pool: Pool, published: LoopbackServer, configuration: str
) -> None:
    published.requests.clear()
    cases = pick_sample(configuration)
    environ = {**AUTHORIZER, **CONFIGURATIONS[configuration].variables, JWKS_ENDPOINT: published.url}

    with emulate("authorizer", environ) as authorizer:
        verdicts = {case.name: invoke(authorizer, case, pool) for case in cases}
        records = authorizer.wait_for_records("connection rejected", at_least=[*verdicts.values()].count("Deny"))

    reasons = {record.get("connectionId"): record["reason"] for record in records}
    outcomes = {name: reasons.get(name) if verdict == "Deny" else verdict for name, verdict in verdicts.items()}
    assert outcomes == {case.name: case.expected for case in cases}
    assert {request.path for request in published.requests} == {JWKS_PATH}


def invoke(authorizer: Emulator, case: Case, pool: Pool) -> str:
    """Return the verdict. A forged event has the case's name as connection id, by which the log line is found."""
    event = case.build_event(pool)
    if case.expected not in (ALLOW, ERROR):
        event["requestContext"]["connectionId"] = case.name
    _, answer = authorizer.invoke(event)
    return ERROR if isinstance(answer, dict) and "errorType" in answer else get_verdict(answer)
