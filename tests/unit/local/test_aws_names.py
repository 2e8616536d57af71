"""Host names: which ones are of AWS, and which service and region they name."""

from __future__ import annotations

import botocore.session
import pytest

from local.aws.endpoint import parse_host_name
from local.aws.resolver import sitecustomize


@pytest.mark.parametrize("host", ["amazonaws.com", "s3.amazonaws.com", "S3.AmazonAWS.com.", b"a.api.aws", "a.on.aws"])
def test_name_of_aws_is_recognised(host: str | bytes) -> None:
    assert sitecustomize.is_aws(host)


@pytest.mark.parametrize("host", ["notamazonaws.com", "amazonaws.com.example.org", "aws", "localhost", "", None, b""])
def test_other_name_is_left_alone(host: str | bytes | None) -> None:
    assert sitecustomize.localize(host, 443) == (host, 443)


def test_suffixes_are_those_of_botocore() -> None:
    partitions = botocore.session.get_session().get_component("data_loader").load_data("partitions")["partitions"]
    outputs = [partition["outputs"] for partition in partitions]

    suffixes = {f".{each[name]}" for each in outputs for name in ("dnsSuffix", "dualStackDnsSuffix")}

    assert {*sitecustomize.SUFFIXES} == suffixes | {".on.aws", ".amazoncognito.com"}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("dynamodb.us-east-1.amazonaws.com", ("dynamodb", "us-east-1")),
        ("dynamodb-fips.us-gov-west-1.api.aws", ("dynamodb", "us-gov-west-1")),
        ("cognito-idp.cn-north-1.amazonaws.com.cn", ("cognito-idp", "cn-north-1")),
        ("rooms.s3.dualstack.us-east-1.amazonaws.com", ("s3", "us-east-1")),
        ("sts.amazonaws.com", ("sts", "")),
        ("amazonaws.com", ("amazonaws.com", "")),
    ],
)
def test_host_names_service_and_region(host: str, expected: tuple[str, str]) -> None:
    assert parse_host_name(host) == expected
