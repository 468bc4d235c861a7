"""What the faces of the formats have in common."""

from collections.abc import Sequence

from locavore.core.request import Request
from locavore.wire.splice import rewrite


class Face:
    """A format's parts under the names of `core.ports.WireFormat`, most of them as they are."""

    PING: bytes
    """Keep-alive bytes between two events."""
    asks_usage = False
    """Its streams tell usage only when asked."""
    may_store = False
    """A server of this format keeps answers unless told otherwise."""

    def ping(self) -> bytes:
        return self.PING

    def rewrite(
        self,
        body: bytes,
        request: Request,
        *,
        model: str,
        add_usage: bool = False,
        drop_labels: bool = True,
        drop: Sequence[str] = (),
    ) -> bytes:
        return rewrite(
            body,
            model=model,
            old_model=request.model,
            add_usage=add_usage and self.asks_usage,
            drop_marks=drop_labels,
            drop=drop,
            unstored=self.may_store and bool(request.labels),
        )
