"""What doctor looks at, as findings: level, where, what, and what to do about it."""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from locavore.compose import reach
from locavore.compose.inventory import Inventory
from locavore.config import Config, load
from locavore.core.backend import Backend
from locavore.core.errors import ConfigError, LocavoreError
from locavore.core.ports import Engine
from locavore.engines import probe as probing
from locavore.engines import weights
from locavore.engines.ask import AskError
from locavore.evidence.achieved import achieved_here
from locavore.ledger.keys import NOBODY
from locavore.ledger.query import open_current, rejects
from locavore.ledger.shared_leases import open_leases
from locavore.routing.estimators.promised import FOLDER
from locavore.routing.loose_ends import loose_ends
from locavore.serving.snapshot import Snapshot, Target
from locavore.serving.state import State


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    level: str
    """`ok`, `warn` or `fail`."""
    where: str
    what: str
    do: str = ""
    """What to do; empty where nothing is to be done."""


def _ok(where: str, what: str) -> Finding:
    return Finding(level="ok", where=where, what=what)


def _warn(where: str, what: str, do: str) -> Finding:
    return Finding(level="warn", where=where, what=what, do=do)


def _fail(where: str, what: str, do: str) -> Finding:
    return Finding(level="fail", where=where, what=what, do=do)


async def diagnose(
    path: Path | None, env: Mapping[str, str], *, home: str | None, probe: bool
) -> list[Finding]:
    """Every finding, in the order in which things are needed. Loads a model only to probe."""
    try:
        config = load(path, env, {"home": home})
    except ConfigError as error:
        return [_fail("configuration", problem, "mend the file") for problem in error.problems]
    findings = [_ok("configuration", str(config.path or "no file: defaults"))]
    homes = list(_home(config.home))
    findings += homes
    if any(finding.level == "fail" for finding in homes):
        return findings  # weights, books and keys are looked for there
    findings += _listener(config)
    findings += await asyncio.to_thread(lambda: list(_weights(config.home)))
    findings += await asyncio.to_thread(lambda: list(_ledger(config)))
    inventory = Inventory(config, env, tell=lambda _: None, engines=False)
    try:
        await inventory.look(own_port=config.server.port)
        snapshot = await asyncio.to_thread(inventory.compile)
        findings += _reachable(snapshot, inventory)
        findings += await _closed(snapshot)
        findings += await asyncio.to_thread(lambda: list(_last_tries(config, snapshot)))
        findings += await asyncio.to_thread(lambda: list(_promises(config)))
        if probe:
            findings += await _probed(snapshot, config.home)
    except LocavoreError as error:
        findings.append(_fail("backends", error.message, "mend the configuration"))
    finally:
        await inventory.close()
    return findings


def _home(home: Path) -> Iterator[Finding]:
    where = "home"
    existing = next(p for p in (home, *home.parents) if p.exists())
    if not os.access(existing, os.W_OK):
        yield _fail(where, f"{home} is not writable", "set LOCAVORE_HOME to a folder you own")
        return
    free_bytes = _free_bytes(existing)
    what = f"{home}, {free_bytes / 2**30:.1f} GiB free"
    if free_bytes < 2**30:
        yield _warn(where, what, "free some space: calls fail when they cannot be recorded")
    else:
        yield _ok(where, what)


def _free_bytes(path: Path) -> int:
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


def _listener(config: Config) -> Iterator[Finding]:
    where, server = "gateway", config.server
    status = _status(config.home)
    if status:
        what = f"running on port {status['port']} with {len(status['workers'])} workers"
        problems = [w["store_error"] for w in status["workers"] if w.get("store_error")]
        yield from (_fail("ledger", p, "see the disk of LOCAVORE_HOME") for p in problems)
        yield _ok(where, what)
        for worker in status["workers"]:
            for target, classes in worker.get("breakers", {}).items():
                opened = [name for name, state in classes.items() if state == "open"]
                if opened:
                    what = f"{target} is left alone for now: {', '.join(opened)}"
                    yield _warn("breaker", what, "see whether that server answers")
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((server.host, server.port))
        except OSError as error:
            what = f"{server.host}:{server.port} cannot be listened on: {error.strerror}"
            yield _fail(where, what, "stop what uses it, or choose another with --port")
            return
    yield _ok(where, f"not running; {server.host}:{server.port} is free")


def _status(home: Path) -> dict[str, Any]:
    try:
        status: dict[str, Any] = json.loads((home / "run" / "status.json").read_bytes())
        os.kill(status["pid"], 0)
    except (OSError, ValueError, KeyError):
        return {}
    return status


def _weights(home: Path) -> Iterator[Finding]:
    installed = weights.installed_models(home)
    for model in installed:
        yield _ok("weights", f"{model.name}, {model.bytes / 2**20:.0f} MiB, from {model.source}")
    whole = {model.name for model in installed}
    for folder in sorted(weights.weights_folder(home).glob("*")):
        if folder.is_dir() and folder.name not in whole:
            yield _warn(
                "weights", f"{folder.name} is not whole", f"locavore pull {folder.name} resumes it"
            )


def _ledger(config: Config) -> Iterator[Finding]:
    where, url = "ledger", config.ledger.url
    yield from _limits(config)
    if url is None and not config.home.exists():
        yield _ok(where, "empty: no call was made yet")
        return
    try:
        db = open_current(config.home, url)
    except LocavoreError as error:
        do = "see that the server runs" if url else "see the disk and the rights of LOCAVORE_HOME"
        yield _fail(where, error.message, do)
        return
    try:
        calls = db.execute("SELECT count(*) FROM calls").fetchone()[0]
        unread = rejects(db)
    finally:
        db.close()
    if unread:
        what = f"{calls} calls; {len(unread)} journal records cannot be read"
        yield _warn(where, what, "`locavore ledger rejects` shows them")
    else:
        yield _ok(where, f"{calls} {'call' if calls == 1 else 'calls'}")


def _limits(config: Config) -> Iterator[Finding]:
    """The shared store of budgets and rate limits, where there is one."""
    url, nodes = config.ledger.limits_url, config.ledger.nodes
    if url is None:
        return
    try:
        with contextlib.closing(open_leases(config.home, url, nodes=nodes)) as leases:
            accounts = len(leases.committed())
    except LocavoreError as error:
        do = f"see that the server runs; till then 1/{nodes} of each limit holds here"
        yield _fail("limits", error.message, do)
    else:
        yield _ok("limits", f"shared by {nodes} gateways, {accounts} accounts in use")


def _never_sent(target: Target) -> Engine:
    raise RuntimeError(f"doctor sends nothing to {target.name}")


def _reachable(snapshot: Snapshot, inventory: Inventory) -> Iterator[Finding]:
    if not snapshot.backends and not snapshot.wildcards:
        yield _fail(
            "backends",
            "nothing is configured or found",
            "locavore pull qwen3-0.6b, or set OPENAI_API_KEY or ANTHROPIC_API_KEY",
        )
    elif not snapshot.backends and snapshot.policy.baseline is None:
        yield _warn(
            "backends",
            "nothing may serve `auto`: models are reached by name only",
            "name one as `baseline` in the configuration",
        )
    if set(snapshot.grants) == {NOBODY}:
        what = "every client key is revoked or has expired: no caller is let in"
        yield _warn("keys", what, "locavore keys create NAME")
    yield from (_ok("found", line) for line in inventory.found_lines())
    names = State(snapshot, _never_sent).router.names
    for line in loose_ends(snapshot.policy, names):
        yield _warn("policy", line, "mend the name, or start what serves it")
    for backend in (*snapshot.backends, *snapshot.named):
        if backend.price is None:
            yield _warn(
                "prices",
                f"{backend.id} has no known price: its calls cost an unknown amount",
                "give it a price = { input_mtok = ..., output_mtok = ... } in the configuration",
            )
    if all(b.is_test for b in snapshot.backends) and snapshot.backends:
        yield _warn(
            "backends",
            "only the built-in test model answers",
            "locavore pull qwen3-0.6b, or set OPENAI_API_KEY or ANTHROPIC_API_KEY",
        )


def _last_tries(config: Config, snapshot: Snapshot) -> Iterator[Finding]:
    """Keys that were refused and hosts that were away when they were last asked."""
    if config.ledger.url is None and not config.home.exists():
        return
    backends = (*snapshot.backends, *snapshot.named, *(w.template for w in snapshot.wildcards))
    providers = {backend.provider for backend in backends}
    with (
        contextlib.suppress(LocavoreError),  # the ledger's own finding says what is wrong with it
        contextlib.closing(open_current(config.home, config.ledger.url)) as db,
    ):
        for what, do in reach.lasting(reach.last_tries(db), providers):
            yield _warn("last try", what, do)


async def _closed(snapshot: Snapshot) -> list[Finding]:
    do = "start it, or mend the url of the backend"
    closed = await reach.closed((*snapshot.backends, *snapshot.named))
    return [_warn("backends", f"nothing listens at {b.url} for {b.id}", do) for b in closed]


def _promises(config: Config) -> Iterator[Finding]:
    """What was promised, and whether it is being kept."""
    if not (config.home / FOLDER).exists():
        return
    try:
        with contextlib.closing(open_current(config.home, config.ledger.url)) as db:
            found = achieved_here(config.home, db)
    except LocavoreError as error:
        yield _fail("promise", str(error), "run `locavore calibrate` again")
        return
    if found and not config.policy.explore_share:
        what = "explore.share is 0: no promise is measured, and none is ever withdrawn"
        yield _warn("promise", what, "set it to 0.02, or to what watching may cost")
    for line in (line for line in found if line.task is None):
        promised = f"{line.local}: {line.target:.1%} of {line.cloud}'s quality promised"
        quality = line.quality
        if line.withdrawn is not None:
            lost = line.withdrawn.achieved
            what = f"{promised}; withdrawn at {lost.mean:.1%} ({lost.low:.1%} - {lost.high:.1%})"
            yield _warn("promise", what, "`locavore calibrate` makes a new promise")
        elif quality is None:
            what = f"{promised}, nothing achieved is known yet"
            yield _warn("promise", what, f"judge about {line.missing} calls: `locavore verdicts`")
        else:
            achieved = f"{quality.mean:.1%} ({quality.low:.1%} - {quality.high:.1%})"
            yield _ok("promise", f"{promised}, {achieved} achieved on {quality.n} judged calls")


async def _probed(snapshot: Snapshot, home: Path) -> list[Finding]:
    local = [b for b in snapshot.backends if b.place.local and not b.is_test]
    return [finding for b in local for finding in await _probe(b, snapshot, home)]


async def _probe(backend: Backend, snapshot: Snapshot, home: Path) -> list[Finding]:
    target = snapshot.target_for(backend)
    if target is None or target.url.startswith("unix:"):
        return []
    try:
        found = await probing.probe(backend, headers=dict(target.headers))
    except AskError as error:
        what, do = f"{backend.id} does not answer: {error}", "start it, or remove it"
        return [_fail("probe", what, do)]
    await asyncio.to_thread(probing.keep, home, backend, found)
    can = ", ".join(sorted(found.capabilities)) or "nothing"
    what = f"{backend.id} showed {can}; {found.context_tokens or 'unknown'} tokens of context"
    if found.truncates:
        return [_warn("probe", f"{what}; it cuts prompts silently", "raise its context window")]
    return [_ok("probe", what)]
