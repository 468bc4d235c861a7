"""The gateway as a process, started and stopped as a user does it."""
