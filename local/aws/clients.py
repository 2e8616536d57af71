"""boto3 clients of local endpoints."""

from __future__ import annotations

from functools import cache
from typing import Any

import boto3
from botocore.config import Config

from local.aws.account import Account
from local.aws.iam import ADMINISTRATOR
from local.aws.models import get_session

CREDENTIALS = {"aws_access_key_id": ADMINISTRATOR, "aws_secret_access_key": ADMINISTRATOR}


@cache
def get_boto3_session() -> boto3.Session:
    return boto3.Session(botocore_session=get_session())


def client(service: str, url: str, region: str = Account.region) -> Any:
    """Return a boto3 client of a local endpoint; it ignores the machine's proxies."""
    return get_boto3_session().client(
        service, endpoint_url=url, region_name=region, config=Config(proxies={}), **CREDENTIALS
    )
