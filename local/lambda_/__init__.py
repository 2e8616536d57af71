"""Lambda's part: functions, their execution environments, and the Runtime API that these poll."""
