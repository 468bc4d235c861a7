"""Public doubles: scripted upstreams for tests of gateways and of code that talks to one.

Nothing in production imports this package.
"""

from locavore.testing import replies
from locavore.testing.upstream import (
    Chunk,
    Close,
    Hold,
    Received,
    Reply,
    Reset,
    ScriptedUpstream,
    Step,
)

__all__ = [
    "Chunk",
    "Close",
    "Hold",
    "Received",
    "Reply",
    "Reset",
    "ScriptedUpstream",
    "Step",
    "replies",
]
