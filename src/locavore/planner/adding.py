"""A model's shape read from its own file: a GGUF header, or a `config.json`.

What comes out must reproduce the file: a GGUF's tensors are counted and compared. A structure this
reader does not know is refused, never approximated.
"""

import datetime
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from locavore.catalog.load import Catalog, home
from locavore.catalog.match import normalise
from locavore.catalog.schema import Mla, Model, Moe, Shape, Source
from locavore.core.errors import ConfigError
from locavore.engines.gguf import GgufError, Header, read_header
from locavore.planner import tensors

HEAD_BYTES = 32 << 20
"""Enough of a published GGUF to hold its header, vocabulary included."""
_CLOSE = 0.002
_KNOWN = {
    "llama": "llama", "mistral": "llama", "granite": "granite", "qwen2": "qwen2",
    "qwen3": "qwen3", "qwen3_moe": "qwen3moe", "mixtral": "llama", "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
}  # fmt: skip
"""`model_type` of a config.json -> llama.cpp's name; other structures need a person."""
_GGUF = frozenset({"llama", "granite", "qwen2", "qwen3", "qwen3moe", "deepseek2"})


_HUB_NAME = re.compile(r"(?!.*\.json$)[\w-][\w.-]*/[\w-][\w.:@-]*")
"""owner/name; no path: those begin with a slash, a dot or a tilde."""


def add(
    origin: str, *, name: str | None = None, license: str | None = None,  # noqa: A002
    catalog: Catalog, to: Path | None = None,
) -> tuple[Model, Path]:  # fmt: skip
    """Read `origin` (a file or a hub repository) and write a catalog file; (model, its path).

    ConfigError: not readable, a structure that is not known, or a license that is not.
    """
    model, source = read(origin, name=name, license=license, catalog=catalog)
    folder = to or home() / "catalog"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{model.name.replace('/', '--')}.toml"
    path.write_text(toml(model, source), encoding="utf-8")
    return model, path


def read(
    origin: str, *, name: str | None, license: str | None, catalog: Catalog  # noqa: A002
) -> tuple[Model, Source]:  # fmt: skip
    """The model record and where it is from."""
    path = Path(origin)
    if path.is_file():
        url, facts = path.resolve().as_uri(), _from_file(path)
    elif _HUB_NAME.fullmatch(origin) and not path.exists():
        url, facts = _hub_url(origin), _from_hub(origin)
    else:
        raise ConfigError([f"{origin!r} is neither a file nor a hub repository (owner/name)"])
    shape, stated_license, stated_name = facts
    key = license or stated_license
    if key is None:
        raise ConfigError([f"{origin} does not state its license; give --license"])
    found = (name or stated_name or path.stem).rsplit("/", 1)[-1]
    source = Source(title=f"the model's own file, {origin}", url=url, read=_today())
    return (
        Model(
            name=found,
            aliases=(origin,) if "/" in origin and not path.is_file() else (),
            family=shape.architecture,
            maker=origin.split("/")[0] if not path.is_file() else "unknown",
            license=catalog.license(key).key,
            shape=msgspec.structs.replace(shape, source=source_key(found)),
        ),
        source,
    )


def source_key(name: str) -> str:
    """Sources share one name space; an added model's is its own."""
    return f"added-{normalise(name).replace('.', '-')}"


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()


Facts = tuple[Shape, str | None, str | None]
"""(shape, license as stated, name as stated)"""


def _from_file(path: Path) -> Facts:
    if path.suffix == ".json":
        return from_config(_json(path.read_text("utf-8"), path.name), path.name), None, None
    try:
        header = read_header(path)
    except GgufError as error:
        raise ConfigError([f"{path}: {error}"]) from None
    facts = header.metadata
    named = facts.get("general.basename") or facts.get("general.name")
    return from_gguf(header, path.name), facts.get("general.license"), named


def _json(text: str, name: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError([f"{name} is no JSON: {error}"]) from None
    if not isinstance(found, dict):
        raise ConfigError([f"{name} holds no object"])
    inner: dict[str, Any] = found.get("text_config", found)
    return inner


def from_config(config: Mapping[str, Any], name: str) -> Shape:
    """The shape a `config.json` describes; ConfigError names what is missing or not known."""
    kind = str(config.get("model_type"))
    if kind not in _KNOWN:
        known = ", ".join(_KNOWN)
        raise ConfigError(
            [f"{name}: model_type {kind!r} is not read automatically; known: {known}"]
        )
    if config.get("use_sliding_window") or (kind == "mistral" and config.get("sliding_window")):
        raise ConfigError([f"{name}: a sliding window; describe the shape by hand"])

    def number(key: str, default: int | None = None) -> int:
        value = config.get(key, default)
        if not isinstance(value, int) or value <= 0:
            raise ConfigError([f"{name}: {key} is {value!r}, not a size"])
        return value

    hidden, heads = number("hidden_size"), number("num_attention_heads")
    mla = _config_mla(config, number) if "kv_lora_rank" in config else None
    return Shape(
        source="added",
        as_of=_today(),
        architecture=_KNOWN[kind],
        layers=number("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=number("num_key_value_heads", heads),
        head_dim=config.get("head_dim") or hidden // heads,
        feed_forward=config.get("intermediate_size") or 0,
        vocab=number("vocab_size"),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        context_tokens=number("max_position_embeddings"),
        mla=mla,
        moe=_config_moe(config, number),
        qkv_bias=kind == "qwen2" or bool(config.get("attention_bias")),
        qk_norm=kind in ("qwen3", "qwen3_moe"),
    )


def _config_mla(config: Mapping[str, Any], number: Any) -> Mla:
    return Mla(
        kv_rank=number("kv_lora_rank"),
        rope_dim=number("qk_rope_head_dim"),
        nope_dim=number("qk_nope_head_dim"),
        value_dim=number("v_head_dim"),
        q_rank=config.get("q_lora_rank") or 0,
    )


def _config_moe(config: Mapping[str, Any], number: Any) -> Moe | None:
    for key in ("num_experts", "n_routed_experts", "num_local_experts"):
        if config.get(key):
            width = config.get("moe_intermediate_size") or number("intermediate_size")
            return Moe(
                experts=number(key),
                active=number("num_experts_per_tok"),
                width=width,
                shared_width=(config.get("n_shared_experts") or 0) * width,
                dense_layers=config.get("first_k_dense_replace") or 0,
                every=config.get("decoder_sparse_step") or config.get("moe_layer_freq") or 1,
            )
    return None


def from_gguf(header: Header, name: str) -> Shape:
    """The shape a GGUF header describes, checked against the tensors it lists."""
    kind = header.architecture
    if kind not in _GGUF:
        known = ", ".join(sorted(_GGUF))
        raise ConfigError([f"{name}: architecture {kind!r} is not read automatically: {known}"])
    dims = {tensor.name: tensor.dimensions for tensor in header.tensors}
    try:
        shape = _gguf_shape(header, dims)
    except (KeyError, GgufError) as error:
        raise ConfigError([f"{name}: the header lacks {error}"]) from None
    listed = sum(t.elements for t in header.tensors if not t.name.startswith("rope_"))
    off = abs(tensors.parameters(shape) - listed) / max(1, listed)
    if off > _CLOSE:
        raise ConfigError(
            [
                f"{name}: {listed:,} weights listed, the shape read from it has"
                f" {tensors.parameters(shape):,}; describe the shape by hand"
            ]
        )
    return shape


def _gguf_shape(header: Header, dims: Mapping[str, tuple[int, ...]]) -> Shape:
    def number(key: str) -> int:
        value = header.number(key)
        if value is None:
            raise KeyError(f"{header.architecture}.{key}")
        return value

    heads, hidden = number("attention.head_count"), number("embedding_length")
    key = header.number("attention.key_length") or hidden // heads
    rank = header.number("attention.kv_lora_rank")
    mla = None
    if rank:
        rope = number("rope.dimension_count")
        wide = header.number("attention.key_length_mla") or key
        mla = Mla(
            kv_rank=rank,
            rope_dim=rope,
            nope_dim=wide - rope,
            value_dim=header.number("attention.value_length_mla")
            or number("attention.value_length"),
            q_rank=header.number("attention.q_lora_rank") or 0,
        )
    return Shape(
        source="added",
        as_of=_today(),
        architecture=header.architecture,
        layers=number("block_count"),
        hidden=hidden,
        heads=heads,
        kv_heads=header.number("attention.head_count_kv") or heads,
        head_dim=key,
        feed_forward=header.number("feed_forward_length") or 0,
        vocab=dims["token_embd.weight"][1],
        tied_embeddings="output.weight" not in dims,
        context_tokens=number("context_length"),
        mla=mla,
        moe=_gguf_moe(header),
        qkv_bias="blk.0.attn_q.bias" in dims,
        qk_norm="blk.0.attn_q_norm.weight" in dims,
    )


def _gguf_moe(header: Header) -> Moe | None:
    experts = header.number("expert_count")
    if not experts:
        return None
    width = header.number("expert_feed_forward_length") or header.number("feed_forward_length") or 0
    return Moe(
        experts=experts,
        active=header.number("expert_used_count") or 1,
        width=width,
        shared_width=(header.number("expert_shared_count") or 0) * width,
        dense_layers=header.number("leading_dense_block_count") or 0,
    )


def _hub_url(repository: str) -> str:
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    return f"{endpoint}/{quote(repository)}"


def _from_hub(repository: str) -> Facts:
    """`config.json`, or the head of the repository's smallest GGUF file."""
    listing = _json(_get(_api_url(repository)).decode(), repository)
    files = [str(row.get("rfilename")) for row in listing.get("siblings", [])]
    stated = (listing.get("cardData") or {}).get("license")
    if "config.json" in files:
        text = _get(f"{_hub_url(repository)}/resolve/main/config.json").decode()
        return from_config(_json(text, "config.json"), repository), stated, repository
    weights = sorted(file for file in files if file.endswith(".gguf") and "mmproj" not in file)
    if not weights:
        raise ConfigError([f"{repository} has neither config.json nor a GGUF file"])
    url = f"{_hub_url(repository)}/resolve/main/{quote(weights[0])}"
    shape, from_header, named = _from_head(url)
    return shape, stated or from_header, named or repository


def _api_url(repository: str) -> str:
    root, owner, name = _hub_url(repository).rsplit("/", 2)
    return f"{root}/api/models/{owner}/{name}"


def _get(url: str, headers: Mapping[str, str] | None = None) -> bytes:
    import httpx2

    token = os.environ.get("HF_TOKEN")
    sent = {**(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
    try:
        answer = httpx2.get(url, headers=sent, follow_redirects=True, timeout=30)
        answer.raise_for_status()
    except httpx2.HTTPError as error:
        raise ConfigError([f"{url}: {error}"]) from None
    return bytes(answer.content)


def _from_head(url: str) -> Facts:
    """The header through a range request; the rest of the file stays a hole."""
    head = _get(url, {"Range": f"bytes=0-{HEAD_BYTES - 1}"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / url.rsplit("/", 1)[-1]
        path.write_bytes(head)
        if len(head) == HEAD_BYTES:
            os.truncate(path, 1 << 42)
        return _from_file(path)


def toml(model: Model, source: Source) -> str:
    """The catalog file of one model."""
    key = source_key(model.name)
    lines = [f"[sources.{key}]", *_pairs(msgspec.to_builtins(source)), "", "[[models]]"]
    facts = msgspec.to_builtins(model)
    shape = facts.pop("shape")
    lines += [*_pairs(facts), "", "[models.shape]", *_pairs(shape)]
    return "\n".join(lines) + "\n"


def _pairs(facts: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {_value(name, value)}" for name, value in facts.items() if value is not None]


def _value(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(_pairs(value)) + " }"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value("", item) for item in value) + "]"
    if isinstance(value, str) and name in ("as_of", "read"):
        return value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
