"""Creates botocore clients of local endpoints."""

from __future__ import annotations

from typing import Any

from botocore.config import Config

from local.aws.account import Account
from local.aws.iam import ADMINISTRATOR
from local.aws.models import get_session

CREDENTIALS: dict[str, Any] = {"aws_access_key_id": ADMINISTRATOR, "aws_secret_access_key": ADMINISTRATOR}


def client(service: str, url: str, region: str = Account.region) -> Any:
    """Create a botocore client of a local endpoint. It ignores the machine's proxies."""
    config = Config(proxies={})
    return get_session().create_client(service, region, endpoint_url=url, config=config, **CREDENTIALS)
