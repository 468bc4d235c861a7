"""A model at a place, with what it really holds and really can do."""

import ipaddress
from enum import IntEnum, StrEnum

import msgspec

from locavore.core.estimate import Estimate
from locavore.core.money import Price


class Place(IntEnum):
    """How far a prompt travels. Ordered: a limit names the farthest place allowed."""

    EMBEDDED = 0  # a child process of this gateway
    ON_PREM = 1  # a server on a network we own
    PRIVATE_CLOUD = 2  # rented machines under our control
    PUBLIC_API = 3

    @property
    def label(self) -> str:
        """The name in configuration, headers and reports."""
        return _LABELS[self]

    @property
    def local(self) -> bool:
        """What the virtual model `local` means: hosted by us, wherever the machine stands."""
        return self < Place.PUBLIC_API


_LABELS = tuple(place.name.lower() for place in Place)  # an enum's own `name` costs 1 µs


# RFC 1918, 3927, 4193 and 4291. `ipaddress.is_private` also takes addresses for documentation,
# benchmarks and the future, which are nobody's network.
_OWN_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
        *("fc00::/7", "fe80::/10"),
    )
)


def place_of_host(host: str) -> Place:
    """Where a host is that nobody told us about; a name that may be anybody's is farthest away."""
    if host == "localhost" or host.endswith(".localhost"):
        return Place.ON_PREM
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return Place.PUBLIC_API
    if address.is_loopback or any(address in network for network in _OWN_NETWORKS):
        return Place.ON_PREM
    return Place.PUBLIC_API


class Capability(StrEnum):
    """What a request can need. A backend has it, lacks it, or nobody has looked (unknown)."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"  # speaks OpenAI Responses natively
    EMBEDDINGS = "embeddings"
    TOOLS = "tools"
    TOOL_CHOICE = "tool_choice"  # a forced or named tool
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"
    LOGPROBS = "logprobs"
    VISION = "vision"
    AUDIO = "audio"
    DOCUMENTS = "documents"  # PDF parts
    REASONING = "reasoning"
    CHOICES = "choices"  # n > 1
    SEED = "seed"
    STORED_STATE = "stored_state"  # previous_response_id and the like
    COUNT_TOKENS = "count_tokens"


class Backend(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model behind one URL. Secrets are not here: they stay with the engine adapters."""

    id: str
    """`provider/model`, as clients name it."""
    provider: str
    """Row of the provider or engine table: `openai`, `vllm`, `embedded`, ..."""
    model: str
    """Name sent upstream."""
    url: str
    """Base URL including any `/v1`, or `unix:/path.sock` with `/v1` appended by the adapter."""
    dialect: str
    """`openai` or `anthropic`."""
    place: Place
    jurisdiction: str | None = None
    """ISO 3166 code or `EU`; None: unknown, which a jurisdiction limit refuses for a public API."""
    context_tokens: int | None = None
    """Window it really holds, prompt and output together; None: unknown."""
    max_output_tokens: int | None = None
    capabilities: frozenset[str] = frozenset()
    """What it is known to do."""
    lacks: frozenset[str] = frozenset()
    """What it is known not to do; what is in neither set is unknown."""
    price: Price | None = None
    """None: unknown. A local engine without a configured price carries `core.money.FREE`."""
    quality: dict[str, Estimate] = {}
    """task class -> score relative to nothing: the raw benchmark score in [0, 1]."""
    prefill_tokens_s: float | None = None
    """Forecast prompt speed, for `max_ttft_s`; None: not a bottleneck or unknown."""
    weights_sha256: str | None = None
    engine_build: str | None = None
    embedding_family: str | None = None
    """Weights, dimension and normalisation that make vectors comparable."""
    quirks: frozenset[str] = frozenset()
    """Names from `locavore.engines.quirks`, where an engine departs from its dialect."""
    is_test: bool = False
    """The built-in test model: labelled everywhere, never a fallback."""

    def can(self, need: str) -> bool:
        return need in self.capabilities
