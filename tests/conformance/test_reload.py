"""C59: a reload with a thousand streams in flight, and a bad file."""

import pytest

from locavore.core.errors import ConfigError
from locavore.testing import Hold, Reply, ScriptedUpstream, replies
from tests.conformance.client import OpenStream, backend
from tests.conformance.conftest import Start

STREAMS = 1000
ROLE = replies.chat_chunk({"role": "assistant", "content": ""})
HELLO = replies.chat_chunk({"content": "Hello"})
END = replies.chat_chunk({}, finish_reason="stop")


def test_c59_a_reload_drops_no_stream_and_new_calls_use_the_new_rules(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream, max_concurrency=2000))
    hold = Hold()
    upstream.always(Reply.sse(ROLE, HELLO, hold, END, replies.DONE))
    streams = [OpenStream(client.gateway.port, _body()) for _ in range(STREAMS)]
    try:
        for stream in streams:
            stream.read_until(b"Hello")
        client.gateway.reload(backend("home/m", other))
        other.always(replies.chat("new rules"))
        assert client.chat().json["choices"][0]["message"]["content"] == "new rules"
        hold.release()
        for stream in streams:
            assert stream.read_all().count(b"[DONE]") == 1
    finally:
        for stream in streams:
            stream.close()
    assert sum(r.outcome == "served" for r in client.records()) == STREAMS + 1


def test_c59_a_bad_file_is_rejected_and_the_old_rules_stay(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream))
    upstream.always(replies.chat())
    with pytest.raises(ConfigError, match="postur"):
        client.gateway.reload('postur = "balanced"\n')
    assert client.chat().status == 200


def _body() -> dict[str, object]:
    said = [{"role": "user", "content": "hi"}]
    return {"model": "home/m", "messages": said, "stream": True}
