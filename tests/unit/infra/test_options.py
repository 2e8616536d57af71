"""The stack's options: what each context key changes in the template, and which values it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

import infra.app
from local.apigateway.limits import Limits
from tests.fixtures.functions import AUTHORIZER, ColdStart
from tests.fixtures.stack import (
    CONTEXT,
    EVERY_OPTION,
    ORIGINS,
    find_functions,
    find_resources,
    get_only_properties,
    read_environment,
    read_outputs,
    synthesize_template,
)

Synthesize = Callable[..., Template]


@pytest.fixture(scope="module")
def synthesize_app(tmp_path_factory: pytest.TempPathFactory) -> Synthesize:
    """Return how to run the app with a context, as the CDK CLI does. Templates are cached: a synthesis takes a second."""
    templates: dict[str, Template] = {}

    def run(**context: Any) -> Template:
        key = json.dumps(context, sort_keys=True)
        if key not in templates:
            outdir = tmp_path_factory.mktemp("cdk.out")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(cdk, "App", partial(cdk.App, outdir=str(outdir), context=context))
                infra.app.main()
            templates[key] = Template.from_string((outdir / "WebSocketCognito.template.json").read_text())
        return templates[key]

    return run


def read_authorizer_options(template: Template) -> dict[str, str]:
    """Return the authorizer's variables, except those that say whose tokens to accept."""
    variables = read_environment(template, "authorizer")
    return {name: value for name, value in variables.items() if name not in {"USER_POOL_ID", "APP_CLIENT_ID"}}


def read_page_config(template: Template) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(read_outputs(template)["PageConfig"])
    return config


# What they change


def test_authorizer_only_checks_the_user_pool_and_the_client_by_default(
    synthesize_app: Synthesize,
) -> None:
    template = synthesize_app()
    (user_pool,) = find_resources(template, "AWS::Cognito::UserPool")
    (client,) = find_resources(template, "AWS::Cognito::UserPoolClient")

    assert read_environment(template, "authorizer") == {
        "USER_POOL_ID": f"${{{user_pool}}}",
        "APP_CLIENT_ID": f"${{{client}}}",
        "CREDENTIAL_MODE": "querystring",
    }


@pytest.mark.parametrize(
    ("context", "credential", "identity_source"),
    [
        ({}, "querystring", "route.request.querystring.idToken"),
        ({"credential": "querystring"}, "querystring", "route.request.querystring.idToken"),
        ({"credential": "subprotocol"}, "subprotocol", "route.request.header.Sec-WebSocket-Protocol"),
    ],
    ids=["default", "querystring", "subprotocol"],
)
def test_gateway_and_authorizer_look_for_the_credential_in_the_same_place(
    synthesize_app: Synthesize, context: dict[str, Any], credential: str, identity_source: str
) -> None:
    template = synthesize_app(**context)
    authorizer = get_only_properties(find_resources(template, "AWS::ApiGatewayV2::Authorizer"))

    assert authorizer["AuthorizerType"] == "REQUEST"
    assert authorizer["IdentitySource"] == [identity_source]
    assert read_authorizer_options(template) == {"CREDENTIAL_MODE": credential}


@pytest.mark.parametrize(
    "value",
    [ORIGINS, ",".join(ORIGINS), " , ".join(ORIGINS)],
    ids=["in cdk.json", "on the command line", "with spaces"],
)
def test_allowed_origins_reach_the_authorizer_and_a_missing_origin_is_not_allowed(
    synthesize_app: Synthesize, value: object
) -> None:
    variables = read_authorizer_options(synthesize_app(allowedOrigins=value))

    assert variables == {
        "CREDENTIAL_MODE": "querystring",
        "ALLOWED_ORIGINS": "https://app.example.com http://localhost:5173",
        "ALLOW_MISSING_ORIGIN": "false",
    }


@pytest.mark.parametrize("yes", [True, "true"], ids=["in cdk.json", "on the command line"])
def test_missing_origin_is_allowed_if_the_context_says_so(synthesize_app: Synthesize, yes: object) -> None:
    template = synthesize_app(allowedOrigins=ORIGINS, allowMissingOrigin=yes)

    assert read_authorizer_options(template)["ALLOW_MISSING_ORIGIN"] == "true"


def test_required_group_reaches_the_authorizer(synthesize_app: Synthesize) -> None:
    assert read_authorizer_options(synthesize_app(requiredGroup="staff"))["REQUIRED_GROUP"] == "staff"


@pytest.mark.parametrize("value", [3, "3"], ids=["in cdk.json", "on the command line"])
def test_connections_of_a_user_are_counted_in_a_table_of_their_own(synthesize_app: Synthesize, value: object) -> None:
    template = synthesize_app(maxConnectionsPerUser=value)
    tables = find_resources(template, "AWS::DynamoDB::Table")
    (users,) = [id_ for id_, table in tables.items() if "GlobalSecondaryIndexes" not in table["Properties"]]
    variables = read_environment(template, "websocket")

    assert variables["MAX_CONNECTIONS_PER_USER"] == "3"
    assert variables["USER_TABLE_NAME"] == f"${{{users}}}" != variables["CONNECTION_TABLE_NAME"]
    assert tables[users]["Properties"]["KeySchema"] == [{"AttributeName": "userId", "KeyType": "HASH"}]
    assert tables[users]["Properties"]["BillingMode"] == "PAY_PER_REQUEST"


def test_connections_of_a_user_are_not_counted_by_default(synthesize_app: Synthesize) -> None:
    template = synthesize_app()

    assert len(find_resources(template, "AWS::DynamoDB::Table")) == 1
    assert read_environment(template, "websocket").keys() == {"CONNECTION_TABLE_NAME", "CALLBACK_URL"}


@pytest.mark.parametrize(
    ("context", "only_by_an_administrator"),
    [({}, True), ({"selfSignUp": False}, True), ({"selfSignUp": "false"}, True), ({"selfSignUp": True}, False)],
    ids=["default", "false in cdk.json", "false on the command line", "true"],
)
def test_nobody_can_sign_up_unless_the_context_allows_it(
    synthesize_app: Synthesize, context: dict[str, Any], *, only_by_an_administrator: bool
) -> None:
    user_pool = get_only_properties(find_resources(synthesize_app(**context), "AWS::Cognito::UserPool"))

    assert user_pool["AdminCreateUserConfig"] == {"AllowAdminCreateUserOnly": only_by_an_administrator}


@pytest.mark.parametrize(
    ("context", "changed"),
    [
        ({"credential": "subprotocol"}, {"credential": "subprotocol"}),
        ({"selfSignUp": "true"}, {"selfSignUp": True}),
        ({"allowedOrigins": ",".join(ORIGINS)}, {"allowedOrigins": ORIGINS}),
        (
            {
                "allowMissingOrigin": "true",
                "requiredGroup": "staff",
                "maxConnectionsPerUser": "3",
                "removalPolicy": "destroy",
                "apiGatewayLogRole": "false",
                "alarmEmail": "operator@example.com",
            },
            {},
        ),
    ],
    ids=["credential", "selfSignUp", "allowedOrigins", "the others"],
)
def test_page_config_has_the_settings_of_the_page(
    synthesize_app: Synthesize, context: dict[str, Any], changed: dict[str, Any]
) -> None:
    by_default = read_page_config(synthesize_app())

    assert read_page_config(synthesize_app(**context)) == by_default | changed


@pytest.mark.parametrize(
    ("context", "policy"),
    [
        ({}, "RetainExceptOnCreate"),
        ({"removalPolicy": "retain"}, "RetainExceptOnCreate"),
        ({"removalPolicy": "destroy"}, "Delete"),
    ],
    ids=["default", "retain", "destroy"],
)
def test_context_decides_what_is_kept(synthesize_app: Synthesize, context: dict[str, Any], policy: str) -> None:
    (user_pool,) = find_resources(synthesize_app(**context), "AWS::Cognito::UserPool").values()

    assert user_pool["DeletionPolicy"] == policy


@pytest.mark.parametrize("no", [False, "false"], ids=["in cdk.json", "on the command line"])
def test_context_can_leave_out_the_accounts_log_role(synthesize_app: Synthesize, no: object) -> None:
    """Values of `-c` on the CDK's command line are text."""
    template = synthesize_app(apiGatewayLogRole=no)

    assert find_resources(template, "AWS::ApiGateway::Account") == {}


@pytest.mark.parametrize(("context", "plan"), [({}, "LITE"), ({"featurePlan": "essentials"}, "ESSENTIALS")])
def test_context_chooses_the_user_pools_plan(synthesize_app: Synthesize, context: dict[str, Any], plan: str) -> None:
    assert (
        get_only_properties(find_resources(synthesize_app(**context), "AWS::Cognito::UserPool"))["UserPoolTier"] == plan
    )


def test_alarms_are_sent_to_the_address_of_the_context(synthesize_app: Synthesize) -> None:
    template = synthesize_app(alarmEmail="operator@example.com")

    assert get_only_properties(find_resources(template, "AWS::SNS::Subscription"))["Endpoint"] == "operator@example.com"


def test_context_of_cdk_json_is_understood(synthesize_app: Synthesize) -> None:
    assert synthesize_app(**CONTEXT).to_json()["Resources"]


def test_keys_of_the_cdk_itself_are_accepted(synthesize_app: Synthesize) -> None:
    """It has feature flags, keys of the CDK's command line, and results of look-ups."""
    looked_up = "availability-zones:account=123456789012:region=us-east-1"
    its_own = {"@aws-cdk/core:checkSecretUsage": True, "aws:cdk:bundling-stacks": ["**"], looked_up: ["us-east-1a"]}

    assert (
        synthesize_app(**its_own, **{"cli-telemetry": False, "acknowledged-issue-numbers": [1]}).to_json()
        == synthesize_app().to_json()
    )


# What they refuse

ONE_OF_CREDENTIALS = "it must be one of querystring, subprotocol"
TRUE_OR_FALSE = "it must be one of true, false"
AN_ORIGIN = "it must be an origin as browsers write it, e.g. https://example.com"
A_GROUP = "it must be a group's name"
AN_ADDRESS = "it must be an e-mail address"
A_STACK_NAME = "up to 128 letters, digits and hyphens, the first a letter"
A_NUMBER = "it must be a number from 1 to 9999"
THERE_ARE = (
    "there are credential, allowedOrigins, allowMissingOrigin, requiredGroup, maxConnectionsPerUser, selfSignUp, "
    "removalPolicy, featurePlan, stackName, apiGatewayLogRole, alarmEmail"
)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("credential", "header", f"credential is 'header', {ONE_OF_CREDENTIALS}"),
        ("credential", "", f"credential is '', {ONE_OF_CREDENTIALS}"),
        ("credential", ["subprotocol"], f"credential is \"['subprotocol']\", {ONE_OF_CREDENTIALS}"),
        ("allowMissingOrigin", "yes", f"allowMissingOrigin is 'yes', {TRUE_OR_FALSE}"),
        ("selfSignUp", 1, f"selfSignUp is '1', {TRUE_OR_FALSE}"),
        ("apiGatewayLogRole", "never", f"apiGatewayLogRole is 'never', {TRUE_OR_FALSE}"),
        ("featurePlan", "free", "featurePlan is 'free', it must be one of lite, essentials, plus"),
        ("stackName", "two words", f"stackName is 'two words', it must be {A_STACK_NAME}"),
        ("removalPolicy", "sometimes", "removalPolicy is 'sometimes', it must be one of destroy, retain"),
        ("allowedOrigins", "*", f"allowedOrigins has '*', {AN_ORIGIN}"),
        ("allowedOrigins", "null", f"allowedOrigins has 'null', {AN_ORIGIN}"),
        ("allowedOrigins", "app.example.com", f"allowedOrigins has 'app.example.com', {AN_ORIGIN}"),
        ("allowedOrigins", "https://*.example.com", f"allowedOrigins has 'https://*.example.com', {AN_ORIGIN}"),
        ("allowedOrigins", "https://example.com/", f"allowedOrigins has 'https://example.com/', {AN_ORIGIN}"),
        ("allowedOrigins", "https://Example.com", f"allowedOrigins has 'https://Example.com', {AN_ORIGIN}"),
        ("allowedOrigins", "HTTPS://example.com", f"allowedOrigins has 'HTTPS://example.com', {AN_ORIGIN}"),
        ("allowedOrigins", "https://example.com:443", f"allowedOrigins has 'https://example.com:443', {AN_ORIGIN}"),
        ("allowedOrigins", "http://example.com:80", f"allowedOrigins has 'http://example.com:80', {AN_ORIGIN}"),
        ("allowedOrigins", "https://a@example.com", f"allowedOrigins has 'https://a@example.com', {AN_ORIGIN}"),
        ("allowedOrigins", "https://a.com https://b.com", f"has 'https://a.com https://b.com', {AN_ORIGIN}"),
        ("allowedOrigins", "https://a.com,", f"allowedOrigins has '', {AN_ORIGIN}"),
        ("allowedOrigins", "", f"allowedOrigins has '', {AN_ORIGIN}"),
        ("allowedOrigins", [], f"allowedOrigins has '', {AN_ORIGIN}"),
        ("allowedOrigins", ["https://a.com", ""], f"allowedOrigins has '', {AN_ORIGIN}"),
        ("allowedOrigins", ["https://a.com", None], f"allowedOrigins has 'None', {AN_ORIGIN}"),
        ("allowedOrigins", ["https://a.com,https://b.com"], f"has 'https://a.com,https://b.com', {AN_ORIGIN}"),
        ("allowedOrigins", False, f"allowedOrigins has 'False', {AN_ORIGIN}"),
        ("allowedOrigins", 0, f"allowedOrigins has '0', {AN_ORIGIN}"),
        ("requiredGroup", "", f"requiredGroup is '', {A_GROUP}"),
        ("requiredGroup", "two words", f"requiredGroup is 'two words', {A_GROUP}"),
        ("requiredGroup", "g" * 129, f"requiredGroup is '{'g' * 129}', {A_GROUP}"),
        ("requiredGroup", ["staff"], f"requiredGroup is ['staff'], {A_GROUP}"),
        ("requiredGroup", False, f"requiredGroup is False, {A_GROUP}"),
        ("maxConnectionsPerUser", "", f"maxConnectionsPerUser is '', {A_NUMBER}"),
        ("maxConnectionsPerUser", 0, f"maxConnectionsPerUser is 0, {A_NUMBER}"),
        ("maxConnectionsPerUser", "-1", f"maxConnectionsPerUser is '-1', {A_NUMBER}"),
        ("maxConnectionsPerUser", 1.5, f"maxConnectionsPerUser is 1.5, {A_NUMBER}"),
        ("maxConnectionsPerUser", "ten", f"maxConnectionsPerUser is 'ten', {A_NUMBER}"),
        ("maxConnectionsPerUser", 10000, f"maxConnectionsPerUser is 10000, {A_NUMBER}"),
        ("maxConnectionsPerUser", True, f"maxConnectionsPerUser is True, {A_NUMBER}"),
        ("alarmEmail", "", f"alarmEmail is '', {AN_ADDRESS}"),
        ("alarmEmail", "operator", f"alarmEmail is 'operator', {AN_ADDRESS}"),
        ("alarmEmail", "operator@localhost", f"alarmEmail is 'operator@localhost', {AN_ADDRESS}"),
        ("alarmEmail", "a@example.com,b@example.com", f"'a@example.com,b@example.com', {AN_ADDRESS}"),
        ("alarmEmail", "a b@example.com", f"alarmEmail is 'a b@example.com', {AN_ADDRESS}"),
        ("alarmEmail", ["a@example.com"], f"alarmEmail is ['a@example.com'], {AN_ADDRESS}"),
        ("alarmEmail", True, f"alarmEmail is True, {AN_ADDRESS}"),
        ("allowedOrigin", "https://a.com", f"allowedOrigin is unknown, {THERE_ARE}"),
        ("allowedorigins", "https://a.com", f"allowedorigins is unknown, {THERE_ARE}"),
        ("allowed_origins", "https://a.com", f"allowed_origins is unknown, {THERE_ARE}"),
        ("allowed-origins", "https://a.com", f"allowed-origins is unknown, {THERE_ARE}"),
        ("origins", ["https://a.com"], f"origins is unknown, {THERE_ARE}"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_context_ends_the_app_with_key_value_and_rule(
    synthesize_app: Synthesize, key: str, value: object, message: str
) -> None:
    with pytest.raises(SystemExit) as refusal:
        synthesize_app(**{key: value})

    assert str(refusal.value).startswith(f"context {key} ")
    assert str(refusal.value).endswith(message)


def test_limit_of_no_connections_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^max_connections_per_user is 0, it must be 1 or more$"):
        synthesize_template(max_connections_per_user=0)


# How the functions read them


def test_downloads_of_keys_end_long_before_the_timeout_of_the_authorizer(imported_authorizer: ModuleType) -> None:
    """A download may wait for that of another thread, and Linux repeats a lost SYN after 1 s."""
    timeout = find_functions(synthesize_template())["authorizer"]["Timeout"]

    assert imported_authorizer.JWKS_REFRESH_SECONDS < imported_authorizer.JWKS_SECONDS <= timeout / 3
    assert 1 < imported_authorizer.JWKS_CONNECT_SECONDS < imported_authorizer.JWKS_SECONDS / 2


def test_latency_alarm_is_above_a_download_of_keys_and_below_every_timeout(imported_authorizer: ModuleType) -> None:
    template = synthesize_template()
    threshold = min(
        alarm["Properties"]["Threshold"] / 1000
        for alarm in find_resources(template, "AWS::CloudWatch::Alarm").values()
        if alarm["Properties"].get("MetricName") == "Duration"
    )

    assert imported_authorizer.JWKS_SECONDS < threshold < find_functions(template)["authorizer"]["Timeout"]
    assert find_functions(template)["authorizer"]["Timeout"] < Limits().integration_seconds


def test_authorizer_understands_every_option(imported_authorizer: ModuleType) -> None:
    variables = read_environment(synthesize_template(**EVERY_OPTION), "authorizer")

    settings = imported_authorizer.Settings.read(variables | AUTHORIZER)

    assert settings.credential_mode == "subprotocol"
    assert settings.allowed_origins == ORIGINS
    assert settings.allow_missing_origin is True
    assert settings.required_group == "staff"


def test_authorizer_accepts_every_origin_that_the_stack_accepts(
    imported_authorizer: ModuleType, synthesize_app: Synthesize
) -> None:
    origins = [
        "https://example.com",
        "https://example.com:8443",
        "https://example.com:80",
        "http://localhost:3000",
        "http://[::1]:4430",
        "https://443.example",
        "chrome-extension://abcdefghijklmnop",
    ]
    variables = read_environment(synthesize_app(allowedOrigins=origins), "authorizer")

    settings = imported_authorizer.Settings.read(variables | AUTHORIZER)

    assert settings.allowed_origins == origins


@pytest.mark.parametrize("origin", ["https://example.com:443", "http://[::1]:80"])
def test_origin_that_no_browser_writes_is_refused_by_the_stack_only(
    imported_authorizer: ModuleType, synthesize_app: Synthesize, origin: str
) -> None:
    """Such an origin would match no client. The function accepts it, because it does no harm."""
    with pytest.raises(SystemExit):
        synthesize_app(allowedOrigins=origin)

    assert imported_authorizer.Settings.read({**AUTHORIZER, "ALLOWED_ORIGINS": origin}).allowed_origins == [origin]


def test_websocket_function_understands_every_option(cold_start: ColdStart) -> None:
    variables = read_environment(synthesize_template(**EVERY_OPTION), "websocket")

    websocket = cold_start("websocket", **variables | {"CALLBACK_URL": "https://api.invalid/prod"})

    assert websocket.settings.max_connections == 3
    assert websocket.settings.user_table == variables["USER_TABLE_NAME"]
    assert websocket.settings.connection_table == variables["CONNECTION_TABLE_NAME"]
