"""Accept findings of cdk-nag's AwsSolutions pack, each with a reason. The tests run cdk-nag and fail for any other finding."""

import aws_cdk as cdk
from constructs import IConstruct


def accept(construct: IConstruct, finding: str, reason: str) -> None:
    """Accept the finding at the construct and its children. Synthesis does not run cdk-nag."""
    cdk.Validations.of(construct).acknowledge(cdk.Acknowledgment(id=f"AwsSolutions-{finding}", reason=reason))


def format_for_finding(construct: IConstruct, value: str) -> str:
    """Return a value as a finding's id contains it: with <...> for each reference to a resource or parameter."""
    resolved = cdk.Stack.of(construct).resolve(value)
    parts = [resolved] if isinstance(resolved, str) else resolved["Fn::Join"][1]
    return "".join(part if isinstance(part, str) else f"<{part['Ref']}>" for part in parts)
