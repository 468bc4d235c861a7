"""Labels of a call: from the header `x-locavore-labels` and from `metadata.labels`."""

from locavore.core.policy import check_labels
from locavore.wire.labelling import split_labels

HEADER = b"x-locavore-labels"


def header_labels(value: bytes) -> frozenset[str]:
    """Labels of a header value, comma-separated. Undecodable bytes make an unknown label: a 400."""
    return split_labels(value.decode("utf-8", "backslashreplace"))


def call_labels(
    header: bytes | None, metadata: frozenset[str], known: frozenset[str]
) -> frozenset[str]:
    """All labels a client put on a call. Raises RequestError (400) for an unknown one."""
    labels = metadata if header is None else metadata | header_labels(header)
    if labels:
        check_labels(labels, known)
    return labels
