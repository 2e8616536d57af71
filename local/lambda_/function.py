"""A Lambda function of the template."""

from __future__ import annotations

from dataclasses import dataclass

from local.aws.iam import Role


@dataclass(frozen=True)
class Function:
    """An AWS::Lambda::Function. `target` is the bake target and also the name of the handler's module."""

    name: str
    arn: str
    target: str
    environment: dict[str, str]
    timeout_seconds: float
    memory_mb: int
    logging: dict[str, str]
    role: Role

    @property
    def region(self) -> str:
        return self.arn.split(":")[3]
