"""API Gateway's part: what it decides (no I/O), and the sockets of one stage."""
