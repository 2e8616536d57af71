"""Reads a synthesized template: its resources, and what its intrinsic functions come to."""
