"""What is compared: models that may be used at all, and the APIs beside them."""

import msgspec

from locavore.catalog.load import Catalog, task_benchmarks
from locavore.catalog.schema import Model
from locavore.core.money import Price
from locavore.planner import apis, licenses, quantization
from locavore.planner.search import Option, Refused, api_option, quality
from locavore.planner.workload import Workload

ELO = "Arena Elo (April 2026)"
TIERS_GB = (8.0, 24.0, 80.0, 10_000.0)
"""Default candidates: the best models of each size of 4-bit file."""
PER_TIER = 2
DEFAULT_SHARE = 0.9
"""Default quality floor: this share of the best closed API's published score."""


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """The quality an option must have, and where that came from."""

    score: float | None = None
    elo: float | None = None
    benchmark: str | None = None
    assumed: str | None = None

    def refuses(self, catalog: Catalog, model: str, score: float | None) -> str | None:
        """Why a model is below the floor, by how much; None: it is not."""
        if self.score is not None:
            if score is None:
                return f"quality: no published score on {self.benchmark}"
            if score < self.score - 5e-4:
                return (
                    f"quality: {score:.1%} on {self.benchmark},"
                    f" {(self.score - score) * 100:.1f} points below the floor"
                )
        if self.elo is not None:
            elo = catalog.scores(model).get(ELO)
            if elo is None:
                return "quality: no published Arena Elo"
            if elo.value < self.elo:
                return f"quality: Elo {elo.value:.0f}, {self.elo - elo.value:.0f} below the floor"
        return None


def floor_of(workload: Workload, closed: list[Option]) -> Floor:
    """The stated floor; without one and without named models, a share of the best closed API."""
    benchmark = task_benchmarks().get(workload.task)
    if workload.min_quality is not None or workload.min_elo is not None:
        return Floor(score=workload.min_quality, elo=workload.min_elo, benchmark=benchmark)
    if workload.models or benchmark is None:
        return Floor(benchmark=benchmark)
    scores = [option.quality for option in closed if option.quality is not None]
    if not scores:
        return Floor(benchmark=benchmark)
    score = DEFAULT_SHARE * max(scores)
    return Floor(
        score=score,
        benchmark=benchmark,
        assumed=f"quality floor {score:.1%} on {benchmark}: 90 % of the best API compared",
    )


def models(
    catalog: Catalog, workload: Workload, floor: Floor
) -> tuple[list[Model], list[Refused], list[licenses.Verdict]]:
    """(models to search, those refused by license or quality, their licenses)."""
    named = [catalog.model(name) for name in workload.models]
    wanted = named or _by_size(catalog, workload, floor)
    use = licenses.use_of(workload)
    kept, refused, verdicts = [], [], []
    for model in wanted:
        verdict = licenses.check_model(catalog, model, use)
        below = floor.refuses(catalog, model.name, quality(catalog, model.name, workload.task))
        if not verdict.allowed:
            reason = "; ".join(duty.text for duty in verdict.forbidden)
            refused.append(Refused(name=model.name, reason=f"license {verdict.name}: {reason}"))
        elif below:
            refused.append(Refused(name=model.name, reason=below))
        else:
            kept.append(model)
            verdicts.append(verdict)
    return kept, refused, verdicts


def _by_size(catalog: Catalog, workload: Workload, floor: Floor) -> list[Model]:
    """The best `PER_TIER` models by the task's score in each size, those under the floor left out.

    Without any published score on the task: nothing, for there is no ground to choose on.
    """
    rows = []
    for model in catalog.models.values():
        shape, score = model.shape, quality(catalog, model.name, workload.task)
        if shape is None or score is None or shape.context_tokens < workload.context_tokens:
            continue
        if floor.refuses(catalog, model.name, score):
            continue
        if not licenses.check_model(catalog, model, licenses.use_of(workload)).allowed:
            continue
        rows.append((quantization.weight_bytes(shape, "Q4_K_M") / 1e9, -score, model.name))
    chosen: list[Model] = []
    start = 0.0
    for end in TIERS_GB:
        tier = sorted((row for row in rows if start <= row[0] < end), key=lambda row: row[1:])
        chosen += [catalog.models[name] for _, _, name in tier[:PER_TIER]]
        start = end
    return chosen


def closed_apis(
    catalog: Catalog, workload: Workload, overlay: dict[str, Price] | None
) -> tuple[list[Option], list[str]]:
    """(options, names without a price) of the closed APIs compared."""
    found, missing = apis.closed(workload, overlay)
    return [api_option(catalog, api, workload, api.model) for api in found], missing


def open_apis(catalog: Catalog, workload: Workload, wanted: list[Model]) -> list[Option]:
    """The hosts of the models searched."""
    return [
        api_option(catalog, api, workload, model.name)
        for model in wanted
        for api in apis.hosts_of(model, workload)
    ]
