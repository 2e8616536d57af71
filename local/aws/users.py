"""Users of a local user pool."""

from __future__ import annotations

from pycognito.aws_srp import AWSSRP

from local.aws.clients import client


class Users:
    """Users of a local user pool, made by its administrator and signed in as a browser does, by SRP."""

    def __init__(self, cognito_url: str, user_pool_id: str, app_client_id: str) -> None:
        self.cognito = client("cognito-idp", cognito_url)
        self.user_pool_id = user_pool_id
        self.app_client_id = app_client_id

    def add(self, email: str, password: str) -> None:
        attributes = [{"Name": "email", "Value": email}, {"Name": "email_verified", "Value": "true"}]
        self.cognito.admin_create_user(
            UserPoolId=self.user_pool_id, Username=email, UserAttributes=attributes, MessageAction="SUPPRESS"
        )
        self.cognito.admin_set_user_password(
            UserPoolId=self.user_pool_id, Username=email, Password=password, Permanent=True
        )

    def id_token(self, email: str, password: str, app_client_id: str | None = None) -> str:
        """The ID token of a sign-in by the Secure Remote Password protocol."""
        sign_in = AWSSRP(
            username=email,
            password=password,
            pool_id=self.user_pool_id,
            client_id=app_client_id or self.app_client_id,
            client=self.cognito,
        )
        return str(sign_in.authenticate_user()["AuthenticationResult"]["IdToken"])
