"""What a client asks: a light `Request` for deciding, a `Conversation` when words must change.

`Request` comes from one typed decode that leaves messages undecoded, because most calls pass
through as bytes. `Conversation` is the full canonical content; a wire format makes it from the
body when a translation or a rule needs it.
"""

from typing import Any, Literal

import msgspec


class Request(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One call as deciding sees it. Unknown fields are kept: they are in `body`."""

    format: str
    """Wire format it came in: `openai_chat`, `openai_completions`, `openai_responses`,
    `openai_embeddings`, `anthropic_messages`, `anthropic_count_tokens`."""
    model: str
    body: bytes
    """The bytes as received."""
    stream: bool = False
    include_usage: bool = False
    """The client asked for usage inside the stream (Anthropic and Responses always do)."""
    max_output_tokens: int | None = None
    n: int = 1
    needs: frozenset[str] = frozenset()
    """Capabilities (`core.backend.Capability`) the answer cannot do without."""
    labels: frozenset[str] = frozenset()
    """Privacy labels, from header, metadata and rules."""
    session: str | None = None
    user: str | None = None
    key_name: str | None = None
    """Name of the key that authenticated the call; never the key."""
    prompt_bytes: int = 0
    """Bytes of text the model will read (messages, system, tools), for token estimates."""
    images: int = 0
    marked: bool = True
    """Our own metadata may stand in the body; False: it certainly does not."""


class Turn(msgspec.Struct, frozen=True, gc=False):
    """One message of a conversation, as judging a call sees it. Text only, whole, as it came."""

    role: str
    """`user`, `assistant` or `tool` (what a tool gave back); instructions are not turns."""
    text: str


class TextPart(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    text: str
    cache_control: dict[str, Any] | None = None


class ImagePart(msgspec.Struct, frozen=True, kw_only=True, tag="image"):
    """Exactly one of `data` (base64, with `media_type`) and `url` is set."""

    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    detail: str | None = None
    cache_control: dict[str, Any] | None = None


class AudioPart(msgspec.Struct, frozen=True, kw_only=True, tag="audio"):
    data: str
    audio_format: str


class DocumentPart(msgspec.Struct, frozen=True, kw_only=True, tag="document"):
    """A file, usually a PDF: `data` (base64), `url` or `file_id`."""

    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    name: str | None = None
    cache_control: dict[str, Any] | None = None


class ReasoningPart(msgspec.Struct, frozen=True, kw_only=True, tag="reasoning"):
    """Earlier thinking sent back by the client; `signature` binds it to the model that wrote it."""

    text: str = ""
    signature: str | None = None
    redacted: str | None = None


class ToolCallPart(msgspec.Struct, frozen=True, kw_only=True, tag="tool_call"):
    id: str
    name: str
    arguments: str
    """JSON text as the model wrote it; may be malformed in a history (C27)."""
    cache_control: dict[str, Any] | None = None


class ToolResultPart(msgspec.Struct, frozen=True, kw_only=True, tag="tool_result"):
    call_id: str
    content: tuple["TextPart | ImagePart | DocumentPart", ...] = ()
    is_error: bool = False
    cache_control: dict[str, Any] | None = None


class RefusalPart(msgspec.Struct, frozen=True, kw_only=True, tag="refusal"):
    text: str


Part = (
    TextPart
    | ImagePart
    | AudioPart
    | DocumentPart
    | ReasoningPart
    | ToolCallPart
    | ToolResultPart
    | RefusalPart
)
Role = Literal["system", "developer", "user", "assistant", "tool"]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    role: Role
    parts: tuple[Part, ...]
    name: str | None = None


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str | None = None
    parameters: dict[str, Any] = {}
    """JSON Schema of the arguments."""
    strict: bool | None = None
    cache_control: dict[str, Any] | None = None


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """`auto`, `none`, `required` (some tool), or `named` with `name`."""

    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str | None = None
    parallel: bool | None = None


class OutputContract(msgspec.Struct, frozen=True, kw_only=True):
    """What the text of the answer must be."""

    kind: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """The full content of a chat-like call, in one form for every dialect."""

    messages: tuple[Message, ...]
    origin: str = ""
    """Wire format it was read from: fields in `extra` mean something to that format only."""
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    output: OutputContract = OutputContract()
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1
    logprobs: bool = False
    top_logprobs: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    reasoning_effort: str | None = None
    reasoning_budget_tokens: int | None = None
    user: str | None = None
    metadata: dict[str, Any] = {}
    service_tier: str | None = None
    extra: dict[str, Any] = {}
    """Top-level fields this vocabulary has no name for, as they came (C33)."""
