"""Deciding who serves a call: pure functions of values, no clock, no sockets, no files."""
