"""Emulates Lambda: functions, their execution environments, and the Runtime API that the environments poll."""
