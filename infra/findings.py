"""Findings of cdk-nag's AwsSolutions pack that stand, and why; the tests run it and accept no other."""

import aws_cdk as cdk
from constructs import IConstruct


def accept(construct: IConstruct, finding: str, reason: str) -> None:
    """The finding at the construct and below it; synthesis itself needs no cdk-nag."""
    cdk.Validations.of(construct).acknowledge(cdk.Acknowledgment(id=f"AwsSolutions-{finding}", reason=reason))


def shown(construct: IConstruct, value: str) -> str:
    """A value as findings have it: <...> where the template refers to something."""
    resolved = cdk.Stack.of(construct).resolve(value)
    parts = [resolved] if isinstance(resolved, str) else resolved["Fn::Join"][1]
    return "".join(part if isinstance(part, str) else f"<{part['Ref']}>" for part in parts)
