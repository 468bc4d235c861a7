"""Locavore serves AI calls from models you host when that is good enough, and says why."""

__version__ = "0.1.0"
