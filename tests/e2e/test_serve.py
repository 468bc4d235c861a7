"""`locavore serve` from start to end, as a real process."""

import json
import os
import pty
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from locavore.core.outcome import CallRecord
from locavore.engines.test_model import SENTENCE
from locavore.ledger.query import open_current
from locavore.testing import Hold, ScriptedUpstream, replies
from tests.e2e.serving import LIMIT_S, QUIET, Serving, eventually, locavore, read_until


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as server:
        yield server


def backend(server: ScriptedUpstream, id_: str = "home/m") -> str:
    return f'{QUIET}[[backend]]\nid = "{id_}"\nurl = "{server.url}"\n'


# -- the built-in test model --------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A gateway that found nothing."""
    with Serving(tmp_path_factory.mktemp("alone")) as serving:
        yield serving


def test_the_test_model_answers_whole_and_streamed(alone: Serving) -> None:
    whole, streamed = alone.chat(), alone.chat(stream=True)
    assert whole.text == streamed.text == SENTENCE
    assert streamed.body.count(b"[DONE]") == 1
    messages = {"model": "auto", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
    claude = alone.call("POST", "/v1/messages", messages).json
    assert (claude["content"][0]["text"], claude["stop_reason"]) == (SENTENCE, "end_turn")


def test_the_test_model_is_labelled_everywhere(alone: Serving) -> None:
    (listed,) = [m for m in alone.get("/v1/models").json["data"] if m["id"] == "embedded/test"]
    assert listed["test_model"] is True
    answer = alone.chat()
    assert answer.headers["x-locavore-test-model"] == "true"
    assert answer.headers["x-locavore-model"] == "embedded/test"
    assert "built-in test model" in alone.stdout


def test_the_banner_has_what_to_paste_next(alone: Serving) -> None:
    for words in ("curl http", "OPENAI_BASE_URL", "claude", "codex", "aider", "locavore pull"):
        assert words in alone.stdout


def test_a_decision_is_found_again_with_its_attempts(alone: Serving) -> None:
    id_ = alone.chat().headers["x-locavore-decision"]
    found = alone.get(f"/v1/decisions/{id_}").json
    assert found["id"] == id_
    assert [a["backend"] for a in found["attempts"]] == ["embedded/test"]


def test_a_second_gateway_on_the_same_home_is_refused(alone: Serving) -> None:
    second = locavore("serve", "--port=0", home=alone.home)
    assert second.returncode == 1
    assert f"pid {alone.process.pid}" in second.stderr
    assert "LOCAVORE_HOME" in second.stderr
    assert alone.get("/health").status == 200


def test_a_port_in_use_is_told_with_the_way_out(alone: Serving, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(QUIET)
    second = locavore("serve", f"--port={alone.port}", home=tmp_path)
    assert second.returncode == 1
    assert f"127.0.0.1:{alone.port}" in second.stderr
    assert "--port" in second.stderr
    assert "Traceback" not in second.stderr


def test_commands_that_print_data_print_json(alone: Serving) -> None:
    alone.chat()
    report = json.loads(locavore("report", "--json", home=alone.home).stdout)
    assert report["total"]["calls"] >= 1
    models = json.loads(locavore("models", "--json", home=alone.home).stdout)
    assert "embedded/test" in [b["id"] for b in models["backends"]]
    decision = json.loads(locavore("route", "--json", "Hello", home=alone.home).stdout)
    assert decision["chosen"] == "embedded/test"
    findings = json.loads(locavore("doctor", "--json", home=alone.home).stdout)
    assert {f["level"] for f in findings} <= {"ok", "warn", "fail"}


# -- what is configured -------------------------------------------------------------------------


def test_the_test_model_never_stands_in_for_a_dead_upstream(tmp_path: Path) -> None:
    with ScriptedUpstream() as server:
        config = backend(server)
    with Serving(tmp_path, config, "--workers=1") as serving:
        answer = serving.chat()
        assert answer.status == 502
        assert "home/m" in answer.json["error"]["message"]
        listed = [m["id"] for m in serving.get("/v1/models").json["data"]]
        assert "home/m" in listed and "embedded/test" not in listed
        assert serving.children()["engines"] == []


def test_a_key_is_asked_for_on_every_route_but_health(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.always(replies.chat("Hello"))
    env = {"LOCAVORE_KEY": "right"}
    with Serving(tmp_path, backend(upstream), "--workers=1", env=env) as serving:
        right, wrong = {"authorization": "Bearer right"}, {"authorization": "Bearer wrong"}
        assert serving.chat(headers=right).text == "Hello"
        assert serving.chat(headers={"x-api-key": "right"}).text == "Hello"
        for headers in (wrong, {}):
            refused = serving.chat(headers=headers)
            code = "invalid_api_key" if headers else "missing_api_key"
            assert (refused.status, refused.json["error"]["code"]) == (401, code)
            assert serving.get("/v1/models", headers=headers).status == 401
        assert serving.get("/v1/models", headers=right).status == 200
        assert serving.get("/health").status == 200
        assert len(upstream.requests) == 2
        assert "right" not in serving.stdout + serving.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_addresses_need_a_key(tmp_path: Path, host: str) -> None:
    refused = locavore("serve", "--port=0", "--host", host, home=tmp_path)
    assert refused.returncode == 2
    assert host in refused.stderr
    assert "LOCAVORE_KEY" in refused.stderr


def test_check_names_file_key_and_value(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text('posture = "locl_first"\n[[backend]]\nid = "home/m"\nurl = "nowhere"\n')
    checked = locavore("serve", "--check", "--config", str(bad), home=tmp_path)
    assert checked.returncode == 2
    for words in (str(bad), "posture", "locl_first", "url", "nowhere"):
        assert words in checked.stderr
    bad.write_text(QUIET)
    good = locavore("serve", "--check", "--config", str(bad), home=tmp_path)
    assert (good.returncode, "valid" in good.stdout) == (0, True)


# -- reload and end -----------------------------------------------------------------------------


def test_sighup_reloads_and_a_bad_file_changes_nothing(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.always(replies.chat("Hello"))
    with Serving(tmp_path, backend(upstream), "--workers=1") as serving:
        serving.configure(backend(upstream, "home/renamed"))
        serving.process.send_signal(signal.SIGHUP)
        serving.told("configuration reloaded")
        assert serving.chat(model="home/renamed").status == 200
        assert serving.chat(model="home/m").status == 404
        serving.configure("posture = 3\n")
        serving.process.send_signal(signal.SIGHUP)
        serving.told("configuration rejected")
        assert "posture" in serving.stderr
        assert serving.chat(model="home/renamed").status == 200


@pytest.mark.skipif(shutil.which("setsid") is None, reason="needs setsid, of util-linux")
def test_a_terminal_that_is_closed_ends_what_ran_in_it(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    # The tests themselves may run under nohup, which is inherited.
    begin = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    begin += (
        "os.execvp('setsid', ['setsid', '-c', sys.executable, '-m', 'locavore', *sys.argv[1:]])"
    )
    command = (sys.executable, "-c", begin)
    with Serving(tmp_path, QUIET, "--workers=1", command=command, stdin=theirs) as serving:
        os.close(theirs)
        serving.process.send_signal(signal.SIGHUP)
        serving.told("configuration reloaded")  # the terminal is there
        os.close(ours)
        assert serving.process.wait(LIMIT_S) == 0


def test_sigterm_lets_a_running_stream_end(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    hold = Hold()
    upstream.script(replies.chat_stream(["Hel", "lo"], between=(hold,)))
    with Serving(tmp_path, backend(upstream), "--workers=1") as serving:
        with serving.open_stream() as stream:
            received = read_until(stream, b"lo")
            serving.process.send_signal(signal.SIGTERM)
            serving.told("finishing calls in flight")
            eventually(lambda: _refuses(serving.port), "no new connection is taken")
            hold.release()
            received += read_until(stream, b"[DONE]")
        assert serving.process.wait(20) == 0
        assert received.count(b"[DONE]") == 1


@pytest.mark.parametrize("policy", ["cancel", "drain"])
def test_a_stream_cut_by_a_second_ctrl_c_leaves_a_record(
    tmp_path: Path, upstream: ScriptedUpstream, policy: str
) -> None:
    hold = Hold()
    upstream.script(replies.chat_stream(["Hel", "lo"], between=(hold,)))
    config = backend(upstream) + f'on_disconnect = "{policy}"\n'
    with Serving(tmp_path, config, "--workers=1") as serving:
        with serving.open_stream() as stream:
            read_until(stream, b"lo")
            serving.process.send_signal(signal.SIGINT)
            serving.told("finishing calls in flight")
            serving.process.send_signal(signal.SIGINT)
            serving.told("stopping at once")
            received = read_until(stream, b"0\r\n\r\n")
            assert serving.process.wait(LIMIT_S) == 0
        assert b"the gateway is stopping" in received
        assert b"[DONE]" not in received
        assert "Traceback" not in serving.stderr
    db = open_current(tmp_path)
    ((body,),) = db.execute("SELECT body FROM records").fetchall()
    db.close()
    record = msgspec.msgpack.decode(body, type=CallRecord)
    assert (record.outcome, record.status, len(record.attempts)) == ("failed", 503, 1)


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return True
    return False


def test_ctrl_c_ends_without_a_traceback(tmp_path: Path) -> None:
    with Serving(tmp_path, QUIET, "--workers=1") as serving:
        left = [p for group in serving.children().values() for p in group]
        assert len(left) == 2  # a worker and the engine
        assert serving.stop(signal.SIGINT) in (0, 130)
        assert "Traceback" not in serving.stderr
        assert not psutil.wait_procs(left, timeout=10)[1]


# -- processes that die -------------------------------------------------------------------------


def test_a_killed_worker_is_replaced_and_calls_go_on(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.always(replies.chat("Hello"))
    with Serving(tmp_path, backend(upstream), "--workers=1") as serving:
        before = serving.chat().headers["x-locavore-decision"]
        (worker,) = serving.children()["workers"]
        worker.kill()
        worker.wait(10)
        # The supervisor holds the listening socket: this call waits for the next worker.
        assert serving.chat().text == "Hello"
        (successor,) = serving.children()["workers"]
        assert successor.pid != worker.pid
        assert serving.get(f"/v1/decisions/{before}").status == 200


def test_c123_kill_9_of_the_supervisor_leaves_nothing_and_loses_no_record(tmp_path: Path) -> None:
    with Serving(tmp_path, QUIET, "--workers=2") as serving:
        id_ = serving.chat().headers["x-locavore-decision"]
        children = serving.children()
        left = [*children["workers"], *children["engines"]]
        assert [len(group) for group in children.values()] == [2, 1]
        os.kill(serving.process.pid, signal.SIGKILL)
        serving.process.wait(10)
        assert not psutil.wait_procs(left, timeout=20)[1]
    with Serving(tmp_path, QUIET, "--workers=1") as serving:
        found = serving.get(f"/v1/decisions/{id_}").json
        assert (found["id"], found["outcome"]) == (id_, "served")
        assert serving.chat().text == SENTENCE
