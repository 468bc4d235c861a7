"""Formats: bytes to the core's vocabulary and back. No sockets, no clock that decides anything."""
