"""Clients and upstreams that misbehave: C10, C13, C101, C105, C112 through the gateway."""

import gzip
import http.client
import json
import socket
import threading
import zlib
from typing import Any

import psutil
import pytest

from locavore.testing import Chunk, Close, Hold, Reply, ScriptedUpstream, replies
from locavore.testing.replies import DONE, chat_chunk, event
from tests.conformance.client import CHAT, CHAT_PATH, Client, OpenStream, backend
from tests.conformance.conftest import Start

MIB = 1 << 20


# -- C10: clients that stop reading ---------------------------------------------------------------


class CountedChunk(Chunk):
    """Counts how often it was sent."""

    sent = 0

    def __init__(self) -> None:
        """Holds nothing: one text serves all."""

    @property
    def data(self) -> bytes:
        CountedChunk.sent += 1
        return PIECE


PIECE = chat_chunk({"content": "x" * 16_000})
PIECES = 2000  # 32 MB per answer; the kernel's buffers hold some 10 MB of one connection


def stalled(client: Client, clients: int) -> list[OpenStream]:
    """Open streams of which nothing is read."""
    return [OpenStream(client.gateway.port, CHAT | {"stream": True}) for _ in range(clients)]


def settled(client: Client) -> int:
    """Pieces sent, once ten live calls in a row saw no more of them."""
    calm, seen = 0, -1
    while calm < 10:
        assert client.chat(model="home/second").status == 200
        calm = calm + 1 if seen == CountedChunk.sent else 0
        seen = CountedChunk.sent
    return seen


def read_quickly(stream: OpenStream) -> bytes:
    whole = bytearray()
    while not whole.endswith(b"0\r\n\r\n"):
        data = stream.socket.recv(MIB)
        assert data, "the stream ended early"
        whole += data
    return bytes(whole)


@pytest.mark.parametrize(
    "clients", [4, pytest.param(1000, marks=[pytest.mark.torture, pytest.mark.timeout(600)])]
)
def test_c10_clients_that_stop_reading_hold_their_upstream_and_little_memory(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream, clients: int
) -> None:
    client = start(backend("home/m", upstream) + backend("home/second", other))
    other.always(replies.chat())
    ending = (chat_chunk({}, finish_reason="stop"), DONE)
    upstream.always(Reply.sse(*[CountedChunk()] * PIECES, *ending))
    CountedChunk.sent = 0
    client.chat(model="home/second")
    before = psutil.Process().memory_info().rss
    streams = stalled(client, clients)
    upstream.wait_for_requests(clients, timeout_s=300)
    sent = settled(client)
    grown = psutil.Process().memory_info().rss - before
    assert sent < clients * PIECES, "the upstream was not held back"
    assert grown < 16 * MIB + clients * MIB, f"{grown / MIB:.0f} MiB for {clients} clients"
    whole = read_quickly(streams[0])
    assert whole.count(b'"content":"xxx') == PIECES
    assert whole.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    for stream in streams:
        stream.close()


# -- C13: what upstreams send ----------------------------------------------------------------------

WHOLE = b"".join(s.data for s in replies.chat_stream().steps if isinstance(s, Chunk))


def packed(coding: str, data: bytes) -> Reply:
    body = gzip.compress(data) if coding == "gzip" else zlib.compress(data)
    headers = (("content-type", "text/event-stream"), ("content-encoding", coding))
    return Reply(tuple(Chunk(body[i : i + 7]) for i in range(0, len(body), 7)), headers=headers)


def raw(text: bytes) -> Reply:
    return Reply((Chunk(text), Close()), framing="raw")


UNUSUAL: dict[str, Reply] = {
    "gzip": packed("gzip", WHOLE),
    "deflate": packed("deflate", WHOLE),
    "HTTP/1.0 until close": raw(
        b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + WHOLE
    ),
    "chunked with trailers": raw(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
        b"trailer: x-sum\r\n\r\n%x;ext=1\r\n%b\r\n0\r\nx-sum: 1\r\n\r\n" % (len(WHOLE), WHOLE)
    ),
}


@pytest.mark.parametrize("reply", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_c13_unusual_framings_reach_the_client_as_usual_ones(
    start: Start, upstream: ScriptedUpstream, reply: Reply
) -> None:
    client = start(backend("home/m", upstream) + "[retry]\nattempts = 1\n")
    upstream.script(reply)
    answer = client.chat(stream=True)
    assert answer.status == 200
    assert answer.text == "Hello"
    assert answer.events[-1] == "[DONE]"
    assert "content-encoding" not in answer.headers


def test_c13_c105_an_answer_that_unpacks_to_absurd_size_is_an_error(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream) + "[retry]\nattempts = 1\n")
    bomb = gzip.compress(bytes(96 * MIB))
    headers = (("content-type", "application/json"), ("content-encoding", "gzip"))
    upstream.script(Reply((Chunk(bomb),), headers=headers), replies.chat())
    answer = client.chat()
    assert answer.status == 502
    assert client.chat().status == 200


# -- C101: no other way to the admin routes --------------------------------------------------------


def exchange(port: int, sent: bytes) -> bytes:
    """Every byte that comes back until the gateway closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


TRICKS = [
    b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: 127.0.0.1\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nx-original-url: /health/live\r\n\r\n",
    b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nx-rewrite-url: /metrics\r\n\r\n",
    b"GET /health/../metrics HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"GET //metrics HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"GET /health/live/%2e%2e/%2e%2e/metrics HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"GET /metrics/ HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"GET /METRICS HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"GET http://localhost/metrics HTTP/1.1\r\nhost: health\r\n\r\n",
    b"GET /metrics?key=secret-of-the-gateway HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer  \r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer \xff\xfe\r\n\r\n",
]


@pytest.mark.parametrize("trick", TRICKS, ids=range(len(TRICKS)))
def test_c101_without_a_key_no_spelling_reaches_a_guarded_route(
    start: Start, upstream: ScriptedUpstream, trick: bytes
) -> None:
    key = "secret-of-the-gateway"
    client = start(backend("home/m", upstream) + '[server]\nkey = "${KEY}"\n', KEY=key)
    connection = client.connection()
    connection.request("GET", "/metrics", headers={"authorization": f"Bearer {key}"})
    assert b"locavore_requests_total" in connection.getresponse().read()
    connection.close()
    assert b"locavore_" not in exchange(client.gateway.port, trick)


# -- C105: request bombs ---------------------------------------------------------------------------


def alive(client: Client) -> bool:
    return client.get("/health/ready").status == 200 and client.chat().status == 200


def deep(levels: int) -> bytes:
    opened = b'{"model":"home/m","messages":[{"role":"user","content":"x"}],"metadata":'
    return opened + b'{"a":' * levels + b"1" + b"}" * levels + b"}"


BOMBS: dict[str, tuple[bytes, set[int]]] = {
    "100 MB": (b'{"model":"home/m","messages":"' + b"x" * (100 * MIB), {413}),
    "deep JSON": (deep(100_000), {400}),
    "deep list": (b"[" * 1_000_000, {400}),
    "not UTF-8": (b'{"model":"home/m","messages":[{"role":"user","content":"\xff\xfe"}]}', {400}),
    "lone surrogate": (
        rb'{"model":"home/m","messages":[{"role":"user","content":"\ud800"}]}',
        {200, 400},
    ),
    "truncated": (b'{"model":"home/m","messages":[{"role":"us', {400}),
    "a number too large": (
        b'{"model":"home/m","messages":[],"max_tokens":1' + b"0" * 400 + b"}",
        {400},
    ),
    "empty": (b"", {400}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_c105_bombs_get_a_clear_error_and_the_gateway_lives(
    start: Start, upstream: ScriptedUpstream, name: str
) -> None:
    client = start(backend("home/m", upstream))
    upstream.always(replies.chat())
    body, expected = BOMBS[name]
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head = head % CHAT_PATH.encode() + b"content-length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", client.gateway.port), timeout=30) as connection:
        sender = threading.Thread(target=send_what_is_taken, args=(connection, head + body))
        sender.start()
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        told = json.loads(answer.read())
    sender.join(30)
    assert answer.status in expected
    if answer.status != 200:
        assert told["error"]["message"]
        assert len(json.dumps(told)) < 2000, "an error does not echo a bomb"
    assert alive(client)


def send_what_is_taken(connection: socket.socket, data: bytes) -> None:
    try:
        connection.sendall(data)
    except OSError:
        return  # refused half-way, which is what is tested


def test_c105_a_hundred_thousand_messages_are_counted_not_crashed_on(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream, context_tokens=1_000_000))
    read_all = {"prompt_tokens": 900_000, "completion_tokens": 1, "total_tokens": 900_001}
    upstream.always(replies.chat(usage=read_all))
    answer = client.chat(messages=CHAT["messages"] * 100_000)
    assert answer.status in (200, 400)
    if answer.status == 400:
        assert answer.error["code"] == "context_length_exceeded"
    assert alive(client)


HEADERS: dict[str, bytes] = {
    "one huge header": b"x-a: " + b"b" * MIB + b"\r\n",
    "many headers": b"".join(b"x-%d: y\r\n" % n for n in range(10_000)),
    "a huge key": b"authorization: Bearer " + b"k" * MIB + b"\r\n",
}


@pytest.mark.parametrize("lines", HEADERS.values(), ids=HEADERS.keys())
def test_c105_huge_heads_are_refused_and_the_gateway_lives(
    start: Start, upstream: ScriptedUpstream, lines: bytes
) -> None:
    client = start(backend("home/m", upstream))
    upstream.always(replies.chat())
    with socket.create_connection(("127.0.0.1", client.gateway.port), timeout=20) as connection:
        send_what_is_taken(
            connection, b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n" + lines + b"\r\n"
        )
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status in (400, 431)
    assert alive(client)


def test_c105_a_compressed_request_is_refused_before_it_is_unpacked(
    start: Start, upstream: ScriptedUpstream
) -> None:
    client = start(backend("home/m", upstream))
    upstream.always(replies.chat())
    bomb = gzip.compress(bytes(64 * MIB))
    answer = client.post(CHAT_PATH, bomb, {"content-encoding": "gzip"})
    assert answer.status == 415
    assert alive(client)


@pytest.mark.parametrize("piece", [b"data: " + b"x" * (20 * MIB), event({"choices": [[]]})])
def test_c105_an_upstream_line_without_end_is_an_error(
    start: Start, upstream: ScriptedUpstream, piece: bytes
) -> None:
    client = start(backend("home/m", upstream) + "[retry]\nattempts = 1\n")
    upstream.script(Reply.sse(piece, Hold(seconds=0.0)))
    assert client.chat(stream=True).status == 502
    upstream.always(replies.chat())
    assert alive(client)


# -- C112: a part of routing that does not answer --------------------------------------------------


def test_c112_a_price_look_up_that_never_answers_leaves_the_price_unknown(
    start: Start, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = f'[providers.openai]\nbase_url = "{upstream.url}"\n'
    client = start(config, OPENAI_API_KEY="k")
    upstream.always(replies.chat())
    silent(client, monkeypatch)
    answer = client.chat(model="openai/a-model-nobody-listed")
    assert answer.status == 200
    (attempt,) = client.record.attempts
    assert attempt.cost is not None
    assert attempt.cost.usd is None


def silent(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor's end of the channel reads questions and gives no answer."""

    def send(message: Any) -> None:
        assert "Resolved" in type(message).__name__

    monkeypatch.setattr(client.gateway._channel, "send", send)


# -- C92: what a refused call leaves behind --------------------------------------------------------


@pytest.mark.parametrize("model", ["nobody/has-this", "cloud/x"])
def test_c92_a_call_that_is_refused_has_bound_its_session(
    start: Start, upstream: ScriptedUpstream, other: ScriptedUpstream, model: str
) -> None:
    config = 'baseline = "cloud/x"\n' + backend("home/m", upstream)
    config += backend("cloud/x", other, place="public_api")
    config += (
        '[[rule]]\nname = "stay"\nwhen = { label = "a" }\nrequire = { farthest = "on_prem" }\n'
    )
    client = start(config)
    upstream.always(replies.chat())
    session = {"x-locavore-session": "s1"}
    refused = client.chat(headers=session | {"x-locavore-labels": "a"}, model=model)
    assert refused.status in (400, 404)
    assert client.chat(model="auto", headers=session).headers["x-locavore-model"] == "home/m"
    assert not other.requests
