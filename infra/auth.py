"""The user pool and its app client."""

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_cognito as cognito
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.findings import accept

PASSWORD_POLICY = cognito.PasswordPolicy(
    min_length=12,
    require_lowercase=True,
    require_uppercase=True,
    require_digits=True,
    require_symbols=True,
    temp_password_validity=cdk.Duration.days(3),
)


class Auth(Construct):
    """The Cognito user pool, and the app client that a page uses to sign users in. The page holds no secret."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        self_sign_up: bool,
        feature_plan: cognito.FeaturePlan,
        removal_policy: cdk.RemovalPolicy,
    ) -> None:
        super().__init__(scope, id_)
        self.self_sign_up = self_sign_up
        self.user_pool = cognito.UserPool(
            self,
            "UserPool",
            self_sign_up_enabled=self_sign_up,
            sign_in_aliases=cognito.SignInAliases(email=True),
            sign_in_case_sensitive=False,
            auto_verify=cognito.AutoVerifiedAttrs(email=True),
            account_recovery=cognito.AccountRecovery.EMAIL_ONLY,
            # Cognito sends this mail for a new user and for a forgotten password.
            user_verification=cognito.UserVerificationConfig(
                email_subject="Your code",
                email_body="Your code is {####}. If you did not ask for one, ignore this mail.",
            ),
            password_policy=PASSWORD_POLICY,
            feature_plan=feature_plan,
            deletion_protection=removal_policy != cdk.RemovalPolicy.DESTROY,
            removal_policy=removal_policy,
        )
        accept(
            self.user_pool,
            "COG2",
            "Multi-factor authentication is left to the deployment: the page here does not ask for a second factor.",
        )
        accept(
            self.user_pool,
            "COG8",
            "The Plus plan costs money for each user and month, and it protects sign-ins, not the use of tokens.",
        )
        self.app_client = self.user_pool.add_client(
            "AppClient",
            auth_flows=cognito.AuthFlow(user_srp=True),
            disable_o_auth=True,
            prevent_user_existence_errors=True,
            enable_token_revocation=True,
            id_token_validity=cdk.Duration.hours(1),
            access_token_validity=cdk.Duration.hours(1),
            refresh_token_validity=cdk.Duration.days(30),
        )

    def verify_tokens_in(self, function: lambda_.Function, *, required_group: str | None) -> None:
        """Tell the function whose tokens to accept. It needs no permission, because the keys are public."""
        function.add_environment("USER_POOL_ID", self.user_pool.user_pool_id)
        function.add_environment("APP_CLIENT_ID", self.app_client.user_pool_client_id)
        if required_group:
            function.add_environment("REQUIRED_GROUP", required_group)

    def allow_operators(self, policy: iam.ManagedPolicy) -> None:
        """Let operators find and disable users."""
        actions = [f"cognito-idp:{action}" for action in ("ListUsers", "AdminGetUser", "AdminDisableUser")]
        policy.add_statements(iam.PolicyStatement(actions=actions, resources=[self.user_pool.user_pool_arn]))

    def build_page_config(self) -> dict[str, Any]:
        """Return the settings that a page needs to sign users in."""
        return {
            "userPoolId": self.user_pool.user_pool_id,
            "appClientId": self.app_client.user_pool_client_id,
            "selfSignUp": self.self_sign_up,
            "passwordPolicy": {
                "minimumLength": PASSWORD_POLICY.min_length,
                "requireLowercase": PASSWORD_POLICY.require_lowercase,
                "requireUppercase": PASSWORD_POLICY.require_uppercase,
                "requireNumbers": PASSWORD_POLICY.require_digits,
                "requireSymbols": PASSWORD_POLICY.require_symbols,
            },
        }
