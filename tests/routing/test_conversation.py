"""Conversations stay where they are unless moving saves more than it loses (C113)."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locavore.core.decision import Considered, Decision
from locavore.core.errors import StoreError
from locavore.core.money import Price, Rate
from locavore.core.policy import Policy, Routing
from locavore.core.ports import Home
from locavore.core.request import Request, Turn
from locavore.ledger.conversations import FileHomes
from locavore.routing.conversation import Talk, answered, mark_of, said
from locavore.routing.router import Router
from locavore.wire.formats import FORMATS
from tests.routing.test_decide import backend

LONG = "word " * 4000


class Homes:
    """In memory, with an age of our choosing."""

    secret = b"s" * 32

    def __init__(self, age_s: float = 1.0) -> None:
        self.places: dict[bytes, int] = {}
        self.age_s = age_s

    def get(self, key: bytes) -> Home | None:
        mark = self.places.get(key)
        return None if mark is None else Home(mark, self.age_s)

    def put(self, key: bytes, mark: int) -> None:
        self.places[key] = mark


def priced(name: str, usd: str, cache_read: str | None = None, **changes: Any) -> Any:
    rate = Rate(
        input_mtok=Decimal(usd),
        output_mtok=Decimal(usd),
        cache_read_mtok=None if cache_read is None else Decimal(cache_read),
    )
    return backend(name, price=Price(rate=rate, source="test"), chat=0.9, **changes)


DEAR = priced("cloud/dear", "4", "0.4")
CHEAP = priced("cloud/cheap", "3", "0.3")
CHEAPER = priced("cloud/cheaper", "0.2")
POLICY = Policy(stage="route")


def body_of(messages: list[dict[str, str]]) -> bytes:
    return msgspec.json.encode({"model": "auto", "messages": messages})


def turn(
    router: Router, homes: Homes | None, messages: list[dict[str, str]], **more: Any
) -> tuple[Decision, Talk]:
    fmt = FORMATS["openai_chat"]
    request = msgspec.structs.replace(fmt.request(body_of(messages)), **more)
    talk = Talk(request, fmt.turns, homes)
    return router.decide(request, decision_id="d", talk=talk), talk


def first_and_second(
    homes: Homes, *, before: Any, after: tuple[Any, ...], policy: Policy = POLICY, **more: Any
) -> Decision:
    """The first turn is served by `before`; the second is decided among `after`."""
    messages = [{"role": "user", "content": LONG}]
    decision, talk = turn(Router(policy, [before]), homes, messages, **more)
    assert decision.chosen == before.id
    talk.served(before.id)
    messages += [{"role": "assistant", "content": "ok"}, {"role": "user", "content": "go on"}]
    return turn(Router(policy, after), homes, messages, **more)[0]


def account(decision: Decision, name: str) -> Considered:
    return next(c for c in decision.considered if c.id == name)


def test_c113_a_conversation_stays_while_moving_loses_more_than_it_saves() -> None:
    assert (
        turn(Router(POLICY, (DEAR, CHEAP)), None, [{"role": "user", "content": LONG}])[0].chosen
        == CHEAP.id
    )
    found = first_and_second(Homes(), before=DEAR, after=(DEAR, CHEAP))
    assert found.chosen == DEAR.id
    home = account(found, DEAR.id)
    assert "home" in home.reasons
    assert home.charges is not None
    assert home.charges.cached_usd < 0
    assert home.cost_usd == home.charges.answer_usd + home.charges.cached_usd
    assert account(found, CHEAP.id).charges is None


def test_c113_it_moves_when_the_saving_exceeds_what_is_lost() -> None:
    assert first_and_second(Homes(), before=DEAR, after=(DEAR, CHEAPER)).chosen == CHEAPER.id


def test_c113_a_cache_that_is_gone_holds_nobody() -> None:
    found = first_and_second(Homes(age_s=301), before=DEAR, after=(DEAR, CHEAP))
    assert found.chosen == CHEAP.id
    assert account(found, DEAR.id).charges is None


def test_c113_policy_can_forbid_moves_for_money() -> None:
    policy = Policy(stage="route", routing=Routing(switch="quality"))
    found = first_and_second(Homes(), before=DEAR, after=(DEAR, CHEAPER), policy=policy)
    assert found.chosen == DEAR.id
    strict = msgspec.structs.replace(policy, posture="quality_first")
    weak = msgspec.structs.replace(DEAR, quality={})
    found = first_and_second(Homes(), before=weak, after=(weak, CHEAPER), policy=strict)
    assert found.chosen == CHEAPER.id, "quality that does not suffice moves it"


def test_c113_a_home_that_may_not_serve_is_left() -> None:
    homes = Homes()
    messages = [{"role": "user", "content": LONG}]
    _, talk = turn(Router(POLICY, [DEAR]), homes, messages)
    talk.served(DEAR.id)
    messages += [{"role": "assistant", "content": "ok"}, {"role": "user", "content": "go on"}]
    fmt = FORMATS["openai_chat"]
    request = fmt.request(body_of(messages))
    found = Router(POLICY, (DEAR, CHEAP)).decide(
        request,
        decision_id="d",
        talk=Talk(request, fmt.turns, homes),
        unavailable={DEAR.id: "breaker_open"},
    )
    assert found.chosen == CHEAP.id


def test_equal_cost_stays() -> None:
    one, two = priced("home/one", "0"), priced("home/two", "0")
    assert first_and_second(Homes(), before=two, after=(one, two)).chosen == two.id
    assert first_and_second(Homes(), before=one, after=(one, two)).chosen == one.id


def test_a_short_prompt_is_in_no_cache() -> None:
    homes = Homes()
    messages = [{"role": "user", "content": "hello"}]
    turn(Router(POLICY, [DEAR]), homes, messages)[1].served(DEAR.id)
    messages += [{"role": "assistant", "content": "hi"}, {"role": "user", "content": "go on"}]
    assert turn(Router(POLICY, (DEAR, CHEAP)), homes, messages)[0].chosen == CHEAP.id


def test_anthropic_caches_only_what_it_is_told_to() -> None:
    native = msgspec.structs.replace(DEAR, dialect="anthropic")
    assert first_and_second(Homes(), before=native, after=(native, CHEAP)).chosen == CHEAP.id


def test_another_clients_conversation_is_not_this_one() -> None:
    homes = Homes()
    messages = [{"role": "user", "content": LONG}]
    turn(Router(POLICY, [DEAR]), homes, messages, key_name="one")[1].served(DEAR.id)
    messages += [{"role": "assistant", "content": "ok"}, {"role": "user", "content": "go on"}]
    router = Router(POLICY, (DEAR, CHEAP))
    assert turn(router, homes, messages, key_name="two")[0].chosen == CHEAP.id
    assert turn(router, homes, messages, key_name="one")[0].chosen == DEAR.id


def test_a_session_is_known_again_when_its_history_was_shortened() -> None:
    homes = Homes()
    messages = [{"role": "user", "content": LONG}]
    turn(Router(POLICY, [DEAR]), homes, messages, session="s1")[1].served(DEAR.id)
    shorter = [
        {"role": "user", "content": LONG[:9000]},
        {"role": "assistant", "content": "summary"},
        {"role": "user", "content": "go on"},
    ]
    router = Router(POLICY, (DEAR, CHEAP))
    assert turn(router, homes, shorter, session="s1")[0].given is not None
    assert turn(router, homes, shorter)[0].given is None


def test_c110_a_decision_replays_from_the_state_it_recorded() -> None:
    found = first_and_second(Homes(), before=DEAR, after=(DEAR, CHEAP))
    read = msgspec.json.decode(msgspec.json.encode(found), type=Decision)
    assert read.given is not None
    assert read.given.home == DEAR.id
    messages = [
        {"role": "user", "content": LONG},
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": "go on"},
    ]
    fmt = FORMATS["openai_chat"]
    request = fmt.request(body_of(messages))
    again = Router(POLICY, (DEAR, CHEAP)).decide(
        request, decision_id="d", talk=Talk(request, fmt.turns), given=read.given
    )
    assert again == found == read


def test_tries_that_fail_cost() -> None:
    one, two = priced("cloud/one", "1.0"), priced("cloud/two", "1.1")
    fmt = FORMATS["openai_chat"]
    request = fmt.request(body_of([{"role": "user", "content": LONG}]))
    router = Router(POLICY, (one, two))

    def decide(**more: Any) -> Decision:
        return router.decide(request, decision_id="d", talk=said(request, "hi"), **more)

    assert decide().chosen == one.id
    failing = decide(failure_rates={one.id: 0.5})
    assert failing.chosen == two.id
    charges = account(failing, one.id).charges
    assert charges is not None
    assert charges.retries_usd == charges.answer_usd, "half of the tries: each answer is paid twice"
    assert decide(failure_rates={one.id: 0.01}).chosen == one.id


# Knowing a conversation again --------------------------------------------------------------------

roles = st.sampled_from(["user", "assistant", "tool"])
turns = st.lists(st.builds(Turn, roles, st.text(max_size=90)), max_size=8)


@given(turns, st.text(max_size=20))
def test_what_was_sent_before_is_the_beginning_of_what_is_sent_now(
    before: list[Turn], answer: str
) -> None:
    if before and before[-1].role == "assistant":
        before = [*before, Turn("user", "x")]
    now = [*before, Turn("assistant", answer), Turn("user", "and now?")]
    assert answered(now) == len(before)
    continued = [*now, Turn("assistant", "It is")]  # a beginning that the client wrote
    assert answered(continued) == len(before)


@given(turns, turns)
def test_other_conversations_have_other_keys(one: list[Turn], two: list[Turn]) -> None:
    request = Request(format="openai_chat", model="auto", body=b"")
    keys = []
    for talk in (one, two):
        found = Talk(request, lambda _, talk=talk: talk, Homes())  # type: ignore[misc]
        found.read()
        keys.append(found.key)
    assert (keys[0] == keys[1]) == (one == two)


# The table ---------------------------------------------------------------------------------------


def test_the_table_is_shared_and_survives(tmp_path: Path) -> None:
    path = tmp_path / "run" / "conversations"
    one, two = FileHomes(path, clock=lambda: 1000.0), FileHomes(path, clock=lambda: 1060.5)
    assert one.secret == two.secret
    one.put(b"k" * 16, mark_of("a/b"))
    assert two.get(b"k" * 16) == Home(mark_of("a/b"), 60.5)
    assert two.get(b"j" * 16) is None
    one.close()
    assert FileHomes(path, clock=lambda: 1000.0).get(b"k" * 16) == Home(mark_of("a/b"), 0.0)
    assert path.stat().st_mode & 0o077 == 0


def test_c85_a_clock_that_jumps_back_makes_no_negative_age(tmp_path: Path) -> None:
    path = tmp_path / "conversations"
    FileHomes(path, clock=lambda: 5000.0).put(b"k" * 16, 7)
    assert FileHomes(path, clock=lambda: 1400.0).get(b"k" * 16) == Home(7, 0.0)


def test_a_slot_that_was_cut_counts_as_empty(tmp_path: Path) -> None:
    path = tmp_path / "conversations"
    homes = FileHomes(path)
    homes.put(b"k" * 16, 7)
    homes.close()
    data = bytearray(path.read_bytes())
    at = data.index(b"k" * 16)
    data[at + 20] ^= 1
    path.write_bytes(data)
    assert FileHomes(path).get(b"k" * 16) is None


def test_a_table_of_another_form_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "conversations"
    path.write_bytes(b"something else")
    homes = FileHomes(path)
    homes.put(b"k" * 16, 7)
    assert homes.get(b"k" * 16) is not None


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="conversations cannot be kept"):
        FileHomes(tmp_path / "file" / "conversations")


def test_workers_that_start_at_once_share_one_table(tmp_path: Path) -> None:
    path = tmp_path / "conversations"
    with ThreadPoolExecutor(8) as workers:
        made = list(workers.map(lambda _: FileHomes(path), range(32)))
    assert len({homes.secret for homes in made}) == 1
    made[0].put(b"k" * 16, 7)
    assert all(homes.get(b"k" * 16) is not None for homes in made)
    assert [found.name for found in tmp_path.iterdir()] == ["conversations"]
