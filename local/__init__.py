"""The whole system on a desk: the synthesized template, run without an AWS account."""
