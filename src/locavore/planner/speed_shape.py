"""What the speed of a model depends on: its shape, from the catalog, a row or flags."""

import functools
import importlib.resources
import json
import re

import msgspec

from locavore.catalog import schema
from locavore.catalog.load import load
from locavore.planner import tensors


class Shape(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the speed of a model depends on. Zeros are estimated from what is known."""

    name: str = ""
    arch: str = "dense"
    """`dense`, `moe` or `dense-ple` (per-layer embeddings, looked up and not multiplied)."""
    total_b: float
    """Parameters, 10^9."""
    active_b: float
    layers: int
    full_layers: int
    """Layers that attend to the whole context."""
    swa_layers: int = 0
    swa_window: int = 0
    kv_heads: int
    head_dim: int
    window_kv_heads: int = 0
    """Of the sliding-window layers; 0: as in the full ones."""
    window_head_dim: int = 0
    query_width: int = 0
    """Query heads times head size; 0: the hidden size."""
    vocab: int = 0
    hidden: int = 0
    tied: bool | None = None
    expert_b: float = 0.0
    """Parameters of all routed experts, 10^9; 0: estimated for a mixture."""
    chosen_b: float = 0.0
    """The part of them that one token uses; 0: estimated."""

    @property
    def width(self) -> int:
        """Hidden size; estimated as sqrt(active / (12 layers)) when not given."""
        return self.hidden or round((self.active_b * 1e9 / self.layers / 12) ** 0.5)

    @property
    def queries(self) -> int:
        """Width of all query heads together."""
        return self.query_width or max(self.width, self.kv_heads * self.head_dim)

    @property
    def sharing(self) -> float:
        """Query heads per key-value head, over all layers that attend to everything."""
        return max(self.queries / (self.kv_heads * self.head_dim), 1.0)

    @property
    def embedding_b(self) -> float:
        """Parameters of one embedding table, 10^9."""
        return (self.vocab or 128_000) * self.width / 1e9

    @property
    def shares_embedding(self) -> bool:
        """Whether the output head is the input table; small models do when nobody says."""
        return self.total_b < 4.5 if self.tied is None else self.tied

    @property
    def moe(self) -> bool:
        return self.arch == "moe" or (self.active_b < 0.9 * self.total_b and "ple" not in self.arch)

    @property
    def dense_b(self) -> float:
        """Parameters outside routed experts, tables included, 10^9.

        Estimated as attention (2.5 width^2 a layer) and tables when the experts are not known.
        """
        if not self.moe:
            return self.total_b
        if self.expert_b:
            return self.total_b - self.expert_b
        tables = self.embedding_b * (1 if self.shares_embedding else 2)
        return min(2.5 * self.layers * self.width**2 / 1e9 + tables, 0.7 * self.active_b)

    @property
    def expert_share(self) -> float:
        """Part of the routed experts that one token uses; 1 without experts."""
        if not self.moe:
            return 1.0
        chosen = self.chosen_b or self.active_b - self.dense_b
        return min(max(chosen / (self.total_b - self.dense_b), 1e-4), 1.0)

    @property
    def latent(self) -> bool:
        """Multi-head latent attention: one compressed vector per token, keys and values in one."""
        return self.kv_heads == 1 and self.head_dim >= 512 and not self.swa_layers

    @property
    def linear_layers(self) -> int:
        """Layers with a recurrent state and no growing cache."""
        return max(self.layers - self.full_layers - self.swa_layers, 0)

    def kv_values(self, context: float) -> float:
        """Cached numbers read per token at this context, all layers together."""
        full = self.kv_heads * self.head_dim * (1 if self.latent else 2)
        heads = self.window_kv_heads or self.kv_heads
        windowed = heads * (self.window_head_dim or self.head_dim) * 2
        window = min(context, self.swa_window) if self.swa_window else context
        return full * self.full_layers * context + windowed * self.swa_layers * window

    def attended(self, context: float) -> float:
        """Positions attended to per token, all layers together."""
        window = min(context, self.swa_window) if self.swa_window else context
        return self.full_layers * context + self.swa_layers * window


def speed_shape(shape: schema.Shape, name: str) -> Shape:
    """A catalog shape as the speed model takes it."""
    total = tensors.parameters(shape) / 1e9
    active = tensors.active_parameters(shape) / 1e9
    if not shape.tied_embeddings:
        active += shape.vocab * shape.hidden / 1e9
    arch = "moe" if shape.moe else "dense-ple" if shape.per_layer_embedding else "dense"
    heads, width = shape.kv_heads, shape.head_dim
    if shape.mla:
        heads, width = 1, shape.mla.kv_rank + shape.mla.rope_dim
    experts = [t for t in tensors.tensors(shape) if t.expert]
    return Shape(
        name=name,
        arch=arch,
        total_b=total,
        active_b=min(active, total) if arch != "dense" else total,
        layers=shape.layers,
        full_layers=shape.full_layers,
        swa_layers=shape.window_layers,
        swa_window=shape.window,
        kv_heads=heads,
        head_dim=width,
        window_kv_heads=shape.window_kv_heads or 0,
        window_head_dim=shape.window_head_dim or 0,
        query_width=shape.heads * width,
        vocab=shape.vocab,
        hidden=shape.hidden,
        tied=shape.tied_embeddings,
        expert_b=sum(t.elements for t in experts) / 1e9,
        chosen_b=sum(tensors.used(shape, t, t.elements) for t in experts) / 1e9,
    )


@functools.cache
def known_shapes() -> dict[str, Shape]:
    """Normalised model name -> shape: the catalog's, and a list of models it does not carry."""
    data = importlib.resources.files("locavore.planner").joinpath("data/model-shapes.json")
    models = json.loads(data.read_text())["models"]
    found = {_plain(name): Shape(name=name, **facts) for name, facts in models.items()}
    for model in load().models.values():
        if model.shape is not None:
            found[_plain(model.name)] = speed_shape(model.shape, model.name)
    return found


_DECORATION = re.compile(r"(instruct|chat|base|it|hf|fp8|bf16|nvfp4|meta|preview|\d{4})$")


def _plain(name: str) -> str:
    """`meta-llama/Llama-3.1-8B-Instruct` -> `llama318b`: letters and digits, no decoration."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower().rsplit("/", 1)[-1]).strip("-")
    while (shorter := _DECORATION.sub("", plain).strip("-")) != plain:
        plain = shorter
    return plain.replace("-", "")


def find_shape(name: str, total_b: float = 0.0) -> Shape | None:
    """A known model by name, also by its family and size (`Llama-3.1-70B` is `Llama-3-70B`)."""
    plain = _plain(name)
    shapes = known_shapes()
    if plain in shapes:
        return shapes[plain]
    close = [
        shape
        for key, shape in shapes.items()
        if key[:5] == plain[:5] and total_b and abs(shape.total_b / total_b - 1) < 0.02
    ]
    return close[0] if close else None
