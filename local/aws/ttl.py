"""Emulates DynamoDB's time to live: deletes items some time after they have expired.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/TTL.html
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef

SWEEP_SECONDS = 10.0  # on AWS it can take days
MIN_SWEEP_SECONDS = 0.1
TOO_OLD_SECONDS = 5 * 365 * 24 * 60 * 60.0  # AWS does not delete an item that expired longer ago

logger = logging.getLogger(__name__)

Item = dict[str, "AttributeValueTypeDef"]  # as DynamoDB's clients write it
Identity = tuple[tuple[str, str], ...]


class Expiry:
    """Selects the expired items of a table. An item's remaining time, when first seen, passes `clock_speed` times faster.

    Args:
        key: the names of the table's key attributes.
        attribute: the attribute with the time of expiry, in Unix seconds.
        clock_speed: by how much the remaining time of items is divided.
    """

    def __init__(self, key: Iterable[str], attribute: str, clock_speed: float = 1.0) -> None:
        self.key = tuple(key)
        self.attribute = attribute
        self.clock_speed = clock_speed
        self._ends: dict[Identity, float] = {}

    def select_expired(self, items: Iterable[Item], now: float) -> list[Item]:
        """Return the items that have expired at `now`. An item whose attribute is no number never expires.

        `items` must be all items of the table: the others are forgotten.
        """
        ends: dict[Identity, float] = {}
        expired = []
        for item in items:
            value = item.get(self.attribute, {}).get("N")
            if value is None:
                continue
            identity = (*((name, str(item[name])) for name in self.key), (self.attribute, value))
            ends[identity] = self._ends.get(identity, now + (float(value) - now) / self.clock_speed)
            if ends[identity] <= now < float(value) + TOO_OLD_SECONDS:
                expired.append(item)
        self._ends = ends
        return expired


async def sweep(dynamodb: DynamoDBClient, table_name: str, attribute: str, clock_speed: float = 1.0) -> None:
    """Delete a table's expired items, until cancelled."""
    expiry: Expiry | None = None
    while True:
        await asyncio.sleep(max(SWEEP_SECONDS / clock_speed, MIN_SWEEP_SECONDS))
        try:
            expiry = expiry or Expiry(
                await asyncio.to_thread(read_key_names, dynamodb, table_name), attribute, clock_speed
            )
            await asyncio.to_thread(delete_expired, dynamodb, table_name, expiry)
        except (BotoCoreError, ClientError) as error:
            logger.warning("expired items of %s could not be deleted: %s", table_name, error)


def read_key_names(dynamodb: DynamoDBClient, table_name: str) -> list[str]:
    """Return the names of the table's key attributes."""
    return [each["AttributeName"] for each in dynamodb.describe_table(TableName=table_name)["Table"]["KeySchema"]]


def delete_expired(dynamodb: DynamoDBClient, table_name: str, expiry: Expiry) -> None:
    pages = dynamodb.get_paginator("scan").paginate(TableName=table_name, ConsistentRead=True)
    items = (item for page in pages for item in page["Items"])
    for item in expiry.select_expired(items, time.time()):
        try:
            dynamodb.delete_item(
                TableName=table_name,
                Key={name: item[name] for name in expiry.key},
                ConditionExpression="#attribute = :seen",  # a function may have renewed the item since the scan
                ExpressionAttributeNames={"#attribute": expiry.attribute},
                ExpressionAttributeValues={":seen": item[expiry.attribute]},
            )
        except dynamodb.exceptions.ConditionalCheckFailedException:
            continue
