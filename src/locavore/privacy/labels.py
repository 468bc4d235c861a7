"""Labels that a call's header gives; `wire.labelling` reads those of its metadata."""

from locavore.wire.labelling import split_labels

HEADER = b"x-locavore-labels"


def header_labels(value: bytes) -> frozenset[str]:
    """Labels of a header value, comma-separated. Undecodable bytes make an unknown label: a 400."""
    return split_labels(value.decode("utf-8", "backslashreplace"))
