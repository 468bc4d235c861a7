"""Random and mangled JSON at every wire format: a Request, or a RequestError that says why."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from locavore.core.errors import RequestError
from locavore.core.request import Request
from locavore.wire.formats import FORMATS

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
]
BODIES: dict[str, dict[str, Any]] = {
    "openai_chat": {
        "model": "m",
        "messages": MESSAGES,
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "max_tokens": 5,
        "metadata": {"labels": "a"},
    },
    "openai_completions": {"model": "m", "prompt": "Hi", "max_tokens": 5},
    "openai_responses": {"model": "m", "input": "Hi", "stream": True},
    "openai_embeddings": {"model": "m", "input": ["Hi", "there"]},
    "anthropic_messages": {
        "model": "m",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "Hi"}],
        "system": "Be brief.",
    },
    "anthropic_count_tokens": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
}
SETTINGS = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["user", "text", "tool", "function", "image_url", "tool_use"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "name", "id", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


def read(name: str, body: bytes) -> None:
    """Both readings of a body end in a value or in a RequestError whose text is printable."""
    for reading in (FORMATS[name].request, FORMATS[name].conversation):
        try:
            found = reading(body)
        except RequestError as error:
            assert 400 <= error.status < 500
            error.message.encode("utf-8")
            assert len(error.message) < 2_000
        else:
            assert not isinstance(found, Request) or found.body == body


@pytest.mark.parametrize("name", FORMATS)
def test_the_sample_bodies_are_read(name: str) -> None:
    body = json.dumps(BODIES[name]).encode()
    assert FORMATS[name].request(body).model == "m"


@pytest.mark.parametrize("name", FORMATS)
@SETTINGS
@given(data=st.binary(max_size=200))
@example(data=b"")
@example(data=b"null")
@example(data=b"\xff\xfe")
@example(data=b'{"model":"\xff"}')
@example(data=b'{"model":"\\ud800","messages":[]}')
@example(data=b'{"model":1e999}')
@example(data=b"[" * 100_000)
@example(data=b'{"messages":' * 10_000)
@example(data=b'{"model":"m","messages":' + b"[" * 20_000 + b"]" * 20_000 + b"}")
@example(data=b'{"model":"m","messages":[{"role":"user","content":' + b"[" * 5000 + b"]" * 5000)
@example(data=b'{"model":"m","max_tokens":' + b"9" * 5000 + b"}")
@example(data=b'{"model":"m","model":"n"}')
def test_c105_random_and_absurd_bodies_are_request_errors(name: str, data: bytes) -> None:
    read(name, data)


@pytest.mark.parametrize("name", FORMATS)
@SETTINGS
@given(data=st.data())
def test_c105_any_value_in_any_field_is_read_or_refused(name: str, data: st.DataObject) -> None:
    body = dict(BODIES[name])
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.sampled_from([*body, "n", "stop", "user", "seed", "tool_choice"]))] = (
            data.draw(VALUES)
        )
    read(name, json.dumps(body).encode())


@pytest.mark.parametrize("name", FORMATS)
@SETTINGS
@given(data=st.data())
def test_c105_damaged_bodies_are_read_or_refused(name: str, data: st.DataObject) -> None:
    body = json.dumps(BODIES[name]).encode()
    at = data.draw(st.integers(0, len(body) - 1))
    damage = data.draw(st.sampled_from([b"", b"\0", b"\xff", b'"', b"{", b"}", b",", b"\\", b"9"]))
    read(name, body[:at] + damage + body[at + data.draw(st.integers(0, 10)) :])
