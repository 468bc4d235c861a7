"""Rows of description columns -> points, in the two forms that measured speeds are published in."""

import math
import re
from collections.abc import Mapping

import msgspec

from locavore.core.errors import RequestError
from locavore.planner.speed_families import engine_family
from locavore.planner.speed_point import Load, Machine, Point, Setting
from locavore.planner.speed_shape import Shape, find_shape


def point_from_row(row: Mapping[str, str | None]) -> Point:
    """One row of description columns -> Point. Raises RequestError naming what is missing.

    Reads hardware, hw_class, n_devices, parallelism, mem_bw_gbs, fp16_tflops, vram_gb, model,
    arch, params_*, layers, *_attn_layers/swa_*, kv_heads, head_dim, quant, bits_per_weight,
    file_gb, engine, backend, n_prompt, n_gen, depth, ctx_avg, batch, kv_type and `threads=` in
    note.
    """
    return Point(machine=_machine(row), shape=_shape(row), setting=_setting(row), load=_load(row))


def number(row: Mapping[str, str | None], key: str, default: float = 0.0) -> float:
    text = (row.get(key) or "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        raise RequestError(f"{key} is {text!r}, which is not a number", param=key) from None
    if not math.isfinite(value):
        raise RequestError(f"{key} is {text!r}; give a finite number", param=key)
    return value


def text(row: Mapping[str, str | None], key: str) -> str:
    return (row.get(key) or "").strip()


def _positive(row: Mapping[str, str | None], key: str) -> float:
    value = number(row, key)
    if value <= 0:
        raise RequestError(f"{key} is {value!r}; give a number above zero", param=key)
    return value


def _machine(row: Mapping[str, str | None]) -> Machine:
    return Machine(
        name=text(row, "hardware"),
        hw_class=text(row, "hw_class"),
        bandwidth_gbs=_positive(row, "mem_bw_gbs"),
        fp16_tflops=max(number(row, "fp16_tflops"), 0.0),
        memory_gb=max(number(row, "vram_gb"), 0.0),
    )


def _shape(row: Mapping[str, str | None]) -> Shape:
    total = _positive(row, "params_total_b")
    active = number(row, "params_active_b") or total
    layers = int(number(row, "layers")) or typical_layers(total)
    swa = int(number(row, "swa_layers"))
    described = Shape(
        name=text(row, "model"),
        arch=text(row, "arch") or ("moe" if active < 0.9 * total else "dense"),
        total_b=total,
        active_b=active,
        layers=layers,
        full_layers=int(number(row, "full_attn_layers", layers - swa)),
        swa_layers=swa,
        swa_window=int(number(row, "swa_window")),
        kv_heads=int(number(row, "kv_heads")) or 8,
        head_dim=int(number(row, "head_dim")) or 128,
    )
    known = find_shape(described.name, total)
    return described if known is None else _completed(described, known)


def _completed(row: Shape, known: Shape) -> Shape:
    """A row's shape with what the catalog adds; the row's own figures when they describe another.

    Rows name one head size for windowed and full layers; where the catalog knows both, it is used.
    """
    same = known.layers == row.layers and abs(known.total_b / row.total_b - 1) < 0.1
    tables = {"vocab": known.vocab, "hidden": known.hidden, "tied": known.tied}
    if not same:
        return msgspec.structs.replace(row, **tables)
    return msgspec.structs.replace(known, name=row.name)


def point_from_serving_row(row: Mapping[str, str | None]) -> Point:
    """One serving row (isl, osl, conc, tp_size, ...) -> Point. Raises RequestError."""
    devices, attention_dp, expert = _serving_layout(row)
    total = _positive(row, "params_total_b")
    precision = text(row, "precision")
    backend = text(row, "backend")
    return Point(
        machine=Machine(
            name=text(row, "system").replace("_", " "),
            hw_class="datacentre_gpu",
            bandwidth_gbs=_positive(row, "mem_bw_gbs"),
            fp16_tflops=max(number(row, "fp16_tflops"), 0.0),
            memory_gb=max(number(row, "memory_gb"), 0.0),
        ),
        shape=_serving_shape(row, total),
        setting=Setting(
            quant={"fp4": "nvfp4", "int4": "awq"}.get(precision.lower(), precision),
            engine=f"{backend} {text(row, 'backend_version')}".strip(),
            backend="cuda",
            devices=devices,
            parallelism=f"TP{devices}",
            attention_dp=attention_dp,
            expert_parallel=expert,
            drafting=_drafts(row),
        ),
        load=Load(
            prompt=number(row, "isl"),
            generate=number(row, "osl"),
            context=number(row, "isl") + number(row, "osl") / 2,
            batch=max(int(number(row, "conc") or number(row, "global_batch", 1)), 1),
        ),
    )


def _drafts(row: Mapping[str, str | None]) -> bool:
    """Whether the run predicts several tokens a step: `mtp` says so, or its container does.

    TensorRT-LLM 1.2.0rc6.post3 served DeepSeek only with its draft layer in the published records
    (4.3 ms a token at batch 4 on 8 B200, where post2 took 7.2); the records' `mtp` says 0.
    """
    release = text(row, "backend_version")
    deepseek = "deepseek" in text(row, "model_path").lower()
    return number(row, "mtp") > 0 or (deepseek and release == "1.2.0rc6.post3")


def _serving_shape(row: Mapping[str, str | None], total: float) -> Shape:
    active = number(row, "params_active_b") or total
    name = text(row, "model_path")
    known = find_shape(name, total)
    layers = int(number(row, "layers")) or typical_layers(total)
    if known and abs(known.total_b / total - 1) < 0.1:
        return msgspec.structs.replace(known, name=name, total_b=total, active_b=active)
    return Shape(
        name=name,
        arch="moe" if active < 0.9 * total else "dense",
        total_b=total,
        active_b=active,
        layers=layers,
        full_layers=layers,
        kv_heads=8,
        head_dim=128,
    )


def _serving_layout(row: Mapping[str, str | None]) -> tuple[int, int, bool]:
    """(devices, groups of data-parallel attention, experts spread over devices).

    Published rows multiply the same devices into several columns: TP 16 with 4 x 4 experts, or
    attention groups 16 with 4 x 4 experts, both mean four devices.
    """
    tp, dp, mtp, ep = (
        max(int(number(row, k, 1)), 1)
        for k in ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
    )
    if mtp == ep > 1:
        return ep, (ep if dp > 1 else 1), True
    if tp == dp > 1:
        return tp, dp, ep > 1
    return tp * dp, dp, ep > 1


def typical_layers(total_b: float) -> int:
    """Depth that models of this size have when nobody says: about 12 (P / 10^9)^0.43 + 10."""
    return round(10 + 12 * total_b**0.43) if total_b < 500 else 64


def _setting(row: Mapping[str, str | None]) -> Setting:
    threads = re.search(r"threads\s*=\s*(\d+)", text(row, "note"))
    return Setting(
        quant=text(row, "quant"),
        bits_per_weight=number(row, "bits_per_weight"),
        file_gb=number(row, "file_gb"),
        engine=_engine(row),
        backend=text(row, "backend"),
        devices=max(int(number(row, "n_devices", 1)), 1),
        parallelism="row" if "sm-row" in text(row, "note") else text(row, "parallelism"),
        kv_bytes=_kv_bytes(text(row, "kv_type")),
        threads=int(threads[1]) if threads else 0,
    )


def _engine(row: Mapping[str, str | None]) -> str:
    """The engine's name, or the one inside it that the run's label betrays.

    `mlx-vlm` is another, slower MLX engine; Ollama runs `4bit` and `8bit` weights with MLX, since
    llama.cpp has no such format.
    """
    engine, label = text(row, "engine"), text(row, "model_as_published").lower()
    if engine == "mlx" and ("mlx-vlm" in label or label.endswith("bit default")):
        return "mlx-vlm"
    bits_only = re.fullmatch(r"\d+-?bit", text(row, "quant").lower())
    return f"{engine} mlx" if engine == "ollama" and bits_only else engine


def _kv_bytes(kv_type: str) -> float:
    name = kv_type.lower()
    if "q8" in name or ("8" in name and "f" in name and "16" not in name):
        return 1.0625
    return 0.5625 if "q4" in name else 2.0


def _load(row: Mapping[str, str | None]) -> Load:
    prompt, generate, depth = (number(row, k) for k in ("n_prompt", "n_gen", "depth"))
    return Load(
        prompt=prompt,
        generate=generate,
        depth=depth,
        context=number(row, "ctx_avg") or depth + prompt + generate / 2,
        batch=int(number(row, "batch", 1)),
        whole_request=_whole_request(row),
    )


def _whole_request(row: Mapping[str, str | None]) -> bool:
    """Crowd-submitted vLLM speeds are tokens over the whole request, as its client prints them.

    40 tok/s after a prompt of 40,000 tokens, 147 after 10,000, 300 after 60, all on one machine.
    """
    return text(row, "tier") == "C" and engine_family(text(row, "engine")) == "vllm"
