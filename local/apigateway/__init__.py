"""Emulates API Gateway: its decisions, without I/O, and a server for one stage."""
