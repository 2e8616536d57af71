"""Runs the synthesized template on this machine, without an AWS account."""
