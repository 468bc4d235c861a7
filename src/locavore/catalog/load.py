"""Reading the catalog: shipped files first, then the operator's, which add and override by name."""

import functools
import importlib.resources
import os
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from locavore.catalog import match
from locavore.catalog.schema import (
    Benchmark,
    Engine,
    File,
    Hardware,
    License,
    Model,
    QuantizationQuality,
    Rate,
    Record,
    Scored,
    ScoreTable,
    Source,
    TaskModel,
)
from locavore.core.errors import ConfigError
from locavore.core.estimate import Estimate

_NOT_RECORDS = {"tasks.toml"}  # the routing layer's mapping, its own format
# 95 % normal interval of a share measured on n items.
_Z95 = 1.96
# A score whose benchmark does not say how many items it has: half-width, percentage points.
UNKNOWN_ITEMS_POINTS = 5.0


class Catalog:
    """Everything known, merged. Look-ups raise ConfigError with the nearest names."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}
        self.models: dict[str, Model] = {}
        self.task_models: dict[str, TaskModel] = {}
        self.hardware: dict[str, Hardware] = {}
        self.engines: dict[str, Engine] = {}
        self.licenses: dict[str, License] = {}
        self.rates: dict[str, Rate] = {}
        self.benchmarks: dict[str, Benchmark] = {}
        self.score_tables: list[ScoreTable] = []
        self.quantization_quality: list[QuantizationQuality] = []
        self.origins: dict[tuple[str, str], str] = {}
        """(kind, name) -> the file it came from."""

    def model(self, name: str) -> Model:
        return match.find(name, self.models, self._model_spellings, what="models")

    def device(self, name: str) -> Hardware:
        spellings = self._device_spellings
        ending = {found for key, found in spellings.items() if key.endswith(f"-{name.lower()}")}
        if name.lower() not in spellings and len(ending) == 1:
            return self.hardware[ending.pop()]
        return match.find(name, self.hardware, spellings, what="hardware")

    def engine(self, name: str) -> Engine:
        spellings = match.index({key: (e.name,) for key, e in self.engines.items()})
        return match.find(name, self.engines, spellings, what="engines")

    def license(self, name: str) -> License:
        spellings = match.index({key: (record.name,) for key, record in self.licenses.items()})
        return match.find(name, self.licenses, spellings, what="licenses")

    def rate(self, key: str) -> Rate:
        if key in self.rates:
            return self.rates[key]
        return match.find(key, self.rates, match.index(dict.fromkeys(self.rates, ())), what="rates")

    @functools.cached_property
    def _model_spellings(self) -> dict[str, str]:
        return match.index({name: model.aliases for name, model in self.models.items()})

    @functools.cached_property
    def _device_spellings(self) -> dict[str, str]:
        return match.index({name: device.aliases for name, device in self.hardware.items()})

    def scores(self, name: str) -> dict[str, Scored]:
        """benchmark -> score of the model or cloud service called `name`; later tables win."""
        return self._scores_by_name.get(self._score_key(name), {})

    def scored_names(self) -> list[str]:
        """Every model and cloud service that some table scores."""
        return sorted({row for table in self.score_tables for row in table.rows})

    @functools.cached_property
    def _scored(self) -> frozenset[str]:
        return frozenset(match.normalise(name) for name in self.scored_names())

    def _score_key(self, name: str) -> str:
        """A name that has rows of its own keeps them, also where it shares a model's shape."""
        plain = match.normalise(name)
        if plain in self._scored:
            return plain
        key = self._model_spellings.get(name.strip().lower()) or self._model_spellings.get(plain)
        return match.normalise(key or name)

    @functools.cached_property
    def _scores_by_name(self) -> dict[str, dict[str, Scored]]:
        found: dict[str, dict[str, Scored]] = {}
        for table in sorted(self.score_tables, key=lambda table: table.as_of):
            for row, cells in table.rows.items():
                mine = found.setdefault(self._score_key(row), {})
                mine.update(_cells(table, cells))
        return found

    def estimate(self, scored: Scored) -> Estimate:
        """A score as a share in [0, 1] with the sampling error of its benchmark."""
        benchmark = self.benchmarks.get(scored.benchmark)
        if benchmark is not None and benchmark.scale == "elo":
            raise ConfigError([f"{scored.benchmark!r} is an Elo rating, not a share"])
        share = scored.value / 100
        items = benchmark.items if benchmark else None
        half = UNKNOWN_ITEMS_POINTS / 100
        if items:
            half = _Z95 * max(share * (1 - share) / items, 0.25 / items**2) ** 0.5
        return Estimate(
            mean=share,
            low=max(0.0, share - half),
            high=min(1.0, share + half),
            n=items or 0,
            source=f"{scored.benchmark}, {scored.conditions}; {self.cite(scored.source)}",
            unit="share",
        )

    def cite(self, key: str) -> str:
        source = self.sources[key]
        return f"{source.title} <{source.url}>"


def _cells(table: ScoreTable, cells: tuple[float | None, ...]) -> Iterator[tuple[str, Scored]]:
    for benchmark, value in zip(table.benchmarks, cells, strict=True):
        if value is not None and value == value:  # nan: the page has no figure
            yield (
                benchmark,
                Scored(
                    benchmark=benchmark,
                    value=value,
                    source=table.source,
                    as_of=table.as_of,
                    conditions=table.conditions,
                ),
            )


def home() -> Path:
    """LOCAVORE_HOME, default `~/.locavore`."""
    return Path(os.environ.get("LOCAVORE_HOME", "~/.locavore")).expanduser()


def load(operator: Path | None = None) -> Catalog:
    """The shipped catalog with the operator's files on top (default `LOCAVORE_HOME/catalog`)."""
    folder = operator if operator is not None else home() / "catalog"
    marks = tuple((str(p), p.stat().st_mtime_ns) for p in sorted(folder.glob("*.toml")))
    return _merged(marks)


@functools.lru_cache(maxsize=4)
def _merged(operator_files: tuple[tuple[str, int], ...]) -> Catalog:
    """Cached by the operator's paths and times of change, so that edits are seen."""
    catalog = Catalog()
    for name, text in _shipped():
        merge(catalog, parse(text, name), name)
    for path, _ in operator_files:
        merge(catalog, parse(Path(path).read_text(encoding="utf-8"), path), path)
    return catalog


def _shipped() -> Iterator[tuple[str, str]]:
    root = importlib.resources.files("locavore.catalog") / "data"
    for folder in sorted(root.iterdir(), key=lambda item: item.name):
        files = [folder] if folder.is_file() else sorted(folder.iterdir(), key=lambda f: f.name)
        for file in files:
            if file.name.endswith(".toml") and file.name not in _NOT_RECORDS:
                yield f"{folder.name}/{file.name}", file.read_text(encoding="utf-8")


def parse(text: str, origin: str) -> File:
    """One file; ConfigError names the file, the key and the value that is wrong."""
    try:
        return msgspec.convert(tomllib.loads(text), File, strict=True)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError([f"catalog file {origin}: {error}"]) from None


def merge(catalog: Catalog, file: File, origin: str) -> None:
    """Add a file's records; a record of the same name replaces the earlier one whole."""
    for key, source in file.sources.items():
        known = catalog.sources.setdefault(key, source)
        if known != source:
            raise ConfigError([f"catalog file {origin}: source {key!r} is already another page"])
    kinds: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
        ("models", file.models, catalog.models, "name"),
        ("task_models", file.task_models, catalog.task_models, "name"),
        ("hardware", file.hardware, catalog.hardware, "name"),
        ("engines", file.engines, catalog.engines, "key"),
        ("licenses", file.licenses, catalog.licenses, "key"),
        ("rates", file.rates, catalog.rates, "key"),
        ("benchmarks", file.benchmarks, catalog.benchmarks, "name"),
    ]
    for kind, records, into, attribute in kinds:
        for record in records:
            name = getattr(record, attribute)
            into[name] = record
            catalog.origins[kind, name] = origin
    catalog.score_tables.extend(file.scores)
    catalog.quantization_quality.extend(file.quantization_quality)
    problems = [
        f"catalog file {origin}: source {key!r} is not in [sources]"
        for key in sorted(_keys_used(file))
        if key not in catalog.sources
    ]
    problems += [
        f"catalog file {origin}: row {row!r} has {len(cells)} scores for"
        f" {len(table.benchmarks)} benchmarks"
        for table in file.scores
        for row, cells in table.rows.items()
        if len(cells) != len(table.benchmarks)
    ]
    if problems:
        raise ConfigError(problems)


def _keys_used(record: Any) -> set[str]:
    """Every `source` key inside a record, at any depth."""
    found: set[str] = set()
    if isinstance(record, (tuple, list)):
        for item in record:
            found |= _keys_used(item)
    elif isinstance(record, Record) and not isinstance(record, Source):
        for name in record.__struct_fields__:
            value = getattr(record, name)
            if name == "source" and isinstance(value, str):
                found.add(value)
            elif name != "sources":
                found |= _keys_used(value)
    return found


@functools.cache
def task_benchmarks() -> dict[str, str]:
    """task class -> the benchmark that fits it best, from `data/tasks.toml`."""
    return {task: names[0] for task, names in _benchmarks_by_task().items()}


@functools.cache
def _benchmarks_by_task() -> dict[str, tuple[str, ...]]:
    file = importlib.resources.files("locavore.catalog") / "data" / "tasks.toml"
    tasks = tomllib.loads(file.read_text("utf-8"))["tasks"]
    return {
        task: (entry["benchmark"], *entry.get("otherwise", ()))
        for task, entry in tasks.items()
        if "benchmark" in entry
    }


def benchmarks_for(
    baseline: str | None, catalog: Catalog, candidates: Iterable[str] = ()
) -> dict[str, str]:
    """task class -> benchmark to compare on: of those the baseline has a score in, the one that
    most `candidates` have one in too, and of these the best fit.

    One benchmark per task for everybody, so that shares compare like with like.
    """
    scored = catalog.scores(baseline) if baseline else {}
    others = [catalog.scores(name) for name in candidates]
    found: dict[str, str] = {}
    for task, names in _benchmarks_by_task().items():
        usable = [name for name in names if name in scored] or [names[0]]
        found[task] = max(usable, key=lambda name: sum(name in other for other in others))
    return found


def quality_scores(
    catalog: Catalog | None = None, *, baseline: str | None = None, candidates: Iterable[str] = ()
) -> dict[str, dict[str, Estimate]]:
    """model or cloud name -> task class -> benchmark score in [0, 1], for quality priors.

    Names are normalised (`match.normalise`); aliases of a catalog model have their own entry, and
    scores of their own where some table has them.
    A task whose benchmark nobody published for a model is absent there.
    `candidates`: the models that will be compared with the baseline.
    """
    facts = catalog or load()
    mapping = benchmarks_for(baseline, facts, candidates)
    found: dict[str, dict[str, Estimate]] = {}
    for name in facts.scored_names():
        model = facts.models.get(name)
        for spelling in (name, *(model.aliases if model else ())):
            scores = facts.scores(spelling)
            tasks = {
                task: facts.estimate(scores[benchmark])
                for task, benchmark in mapping.items()
                if benchmark in scores
            }
            if tasks:
                found.setdefault(match.normalise(spelling), tasks)
    return found


def quality_for(name: str, scores: dict[str, dict[str, Estimate]]) -> dict[str, Estimate]:
    """The scores of whatever a server calls `name`; empty when nobody published any."""
    return scores.get(match.normalise(name), {})
