"""From the `model` a client named to the backends that may serve it.

Order: exact backend id, alias, virtual (`auto`, `local`, `cloud`), `provider/anything` of a
provider that serves more than it lists, a bare name that exactly one backend serves, a bare name of
a provider's own family (`claude-...`), else 404.
"""

import difflib
from collections.abc import Iterable, Mapping

import msgspec

from locavore.core.backend import Backend
from locavore.core.errors import RequestError

VIRTUAL = ("auto", "local", "cloud")
FIRST_PARTY: dict[str, tuple[str, ...]] = {
    "openai": ("gpt-", "chatgpt-", "o1", "o3", "o4", "text-embedding-"),
    "anthropic": ("claude-",),
    "gemini": ("gemini-",),
    "mistral": ("mistral-", "codestral-", "ministral-", "magistral-", "devstral-"),
    "deepseek": ("deepseek-",),
    "xai": ("grok-",),
}
"""Provider -> how the names of its own models begin: clients made for a provider send them bare."""
MAX_ALIAS_STEPS = 32
SHOWN_CHARS = 100


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """How a name was read."""

    kind: str
    """`backend`, `alias`, `auto`, `local`, `cloud` or `bare`: as the client wrote it."""
    backends: tuple[Backend, ...]
    virtual: str | None = None
    """`auto`, `local` or `cloud`: `backends` compete; None: one backend was meant."""

    @property
    def named(self) -> bool:
        """The client meant one backend."""
        return self.virtual is None


class Names:
    """The names one snapshot answers to."""

    def __init__(
        self,
        backends: Iterable[Backend],
        *,
        wildcards: Mapping[str, Backend] | None = None,
        only_named: Iterable[Backend] = (),
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """`only_named` are reached by name and never compete; `wildcards`: prefix -> template."""
        self.competing = tuple(backends)
        self.by_id = {b.id: b for b in (*only_named, *self.competing)}
        self.wildcards = dict(wildcards or {})
        self.aliases = dict(aliases or {})
        self._bare: dict[str, list[Backend]] = {}
        for backend in self.by_id.values():
            for name in {backend.model, backend.id.partition("/")[2]}:
                self._bare.setdefault(name, []).append(backend)

    def resolve(self, name: str) -> Resolved:
        """Raises RequestError (404, `model_not_found`) for a name nothing answers to."""
        backend = self.by_id.get(name)
        if backend is not None:
            return Resolved(kind="backend", backends=(backend,))
        target = self.aliases.get(name)
        if target is not None:
            return self._alias(name, target)
        if name in VIRTUAL:
            return Resolved(kind=name, virtual=name, backends=self._virtual(name))
        backend = self.wildcard(name)
        if backend is not None:
            return Resolved(kind="backend", backends=(backend,))
        return self._by_bare(name)

    def _alias(self, name: str, target: str) -> Resolved:
        if alias_loop(name, self.aliases):
            raise _not_found(f"the alias {name!r} leads back to itself")
        found = self.resolve(target)
        return msgspec.structs.replace(found, kind="alias")

    def _virtual(self, name: str) -> tuple[Backend, ...]:
        if name == "auto":
            return self.competing
        wanted = name == "local"
        return tuple(b for b in self.competing if b.place.local == wanted)

    def wildcard(self, name: str) -> Backend | None:
        prefix, slash, model = name.partition("/")
        template = self.wildcards.get(prefix)
        if template is None or not slash or not model:
            return None
        return msgspec.structs.replace(template, id=name, model=model)

    def _first_party(self, name: str) -> list[Backend]:
        """The provider whose own model this is, if it can be reached."""
        for provider, beginnings in FIRST_PARTY.items():
            if provider in self.wildcards and name.startswith(beginnings):
                id_ = f"{provider}/{name}"
                found = self.by_id.get(id_) or self.wildcard(id_)
                return [found] if found is not None else []
        return []

    def _by_bare(self, name: str) -> Resolved:
        serving = self._bare.get(name) or self._first_party(name)
        if len(serving) == 1:
            return Resolved(kind="bare", backends=(serving[0],))
        if serving:
            ids = ", ".join(sorted(b.id for b in serving))
            hint = f"several backends serve it; name one of {ids}"
        else:
            hint = self._nearest(name)
        shown = name if len(name) <= SHOWN_CHARS else name[:SHOWN_CHARS] + "..."
        raise _not_found(f"the model {shown!r} does not exist here: {hint}")

    def _nearest(self, name: str) -> str:
        known = [*self.by_id, *self.aliases, *VIRTUAL]
        close = difflib.get_close_matches(name[:SHOWN_CHARS], known, n=3, cutoff=0.5)
        close = close or difflib.get_close_matches(
            name[:SHOWN_CHARS], list(self._bare), n=3, cutoff=0.5
        )
        if close:
            return "did you mean " + " or ".join(repr(c) for c in close) + "?"
        return "GET /v1/models lists what does"

    def listed(self) -> list[str]:
        """Names for `/v1/models`: virtual ones that lead somewhere, aliases, backends."""
        virtual = [name for name in VIRTUAL if self._virtual(name)]
        return list(dict.fromkeys([*virtual, *self.aliases, *self.by_id]))


def _not_found(message: str) -> RequestError:
    return RequestError(message, status=404, code="model_not_found", param="model")


def alias_loop(name: str, aliases: Mapping[str, str]) -> list[str]:
    """The way from `name` back to a name already passed; empty when it ends."""
    path = [name]
    while path[-1] in aliases:
        path.append(aliases[path[-1]])
        if path[-1] in path[:-1] or len(path) > MAX_ALIAS_STEPS:
            return path
    return []
