"""The CDK app."""

import os

# Node 20 works. jsii would print eleven lines about its end of life, which would hide our own output.
os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "20")
