"""Logistic regression with priors and groups, against data whose truth is known."""

from random import Random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from locavore.routing.estimators.logit import Case, Prior, fit, logit, probability
from locavore.routing.estimators.odds import UNKNOWN, fit_odds


def _cases(n: int, seed: int) -> list[Case]:
    """Level -1, slope 2 beside an offset; the second of two groups is 1.5 higher."""
    random, found = Random(seed), []
    for k in range(n):
        x, offset = random.gauss(0, 1), random.gauss(0, 0.5)
        p = probability(offset - 1 + 2 * x + 1.5 * (k % 2))
        found.append(Case((1.0, x), offset, float(random.random() < p), k % 2))
    return found


def test_what_made_the_data_is_found_and_its_doubt_shrinks_with_their_number() -> None:
    prior = Prior((10.0, 10.0), 1.5, 2)
    few, many = fit(_cases(200, 1), prior), fit(_cases(4000, 2), prior)
    assert abs(many.line[1] - 2) < 0.2
    assert abs(many.effects[1] - many.effects[0] - 1.5) < 0.25
    for line, effects in (((0.0, 1.0), (0.0, 0.0)), ((0.0, 0.0), (-1.0, 1.0))):
        assert 10 < few.variance(line, effects) / many.variance(line, effects) < 40


def test_the_stated_variance_is_that_of_repeated_fits() -> None:
    prior = Prior((10.0, 10.0), 1.5, 2)
    fits = [fit(_cases(300, seed), prior) for seed in range(80)]
    slopes = [f.line[1] for f in fits]
    mean = sum(slopes) / len(slopes)
    seen = sum((s - mean) ** 2 for s in slopes) / len(slopes)
    stated = sum(f.variance((0.0, 1.0), (0.0, 0.0)) for f in fits) / len(fits)
    assert 0.6 < seen / stated < 1.6


def test_a_narrow_prior_holds_still() -> None:
    held = fit(_cases(300, 3), Prior((0.01, 0.01), 0.01, 2))
    assert max(map(abs, (*held.line, *held.effects))) < 0.05


@given(st.floats(0.002, 0.998))
def test_a_logit_is_undone(p: float) -> None:
    assert abs(probability(logit(p)) - p) < 1e-9


def test_odds_follow_what_was_lost_and_gained() -> None:
    random, scores, gains = Random(4), [], []
    for _ in range(4000):
        score = random.gauss(0, 1)
        lost = random.random() < probability(-1 - score)
        scores.append(score)
        gains.append(-1.0 if lost else float(random.random() < 0.1))
    odds = fit_odds(scores, gains)
    for score in (-1.5, 0.0, 1.5):
        place = odds.place(score)
        assert abs(probability(odds.logits(place)[0]) - probability(-1 - score)) < 0.05
    assert abs(probability(odds.logits(0.0)[1]) - 0.07) < 0.03


def test_wrong_verdicts_show_what_independent_mistakes_make_of_it() -> None:
    odds, noise, random = msgspec.structs.replace(UNKNOWN, middle=1.5), 0.1, Random(8)
    lost, won = map(probability, odds.logits(0.0))
    seen = [0, 0]
    for _ in range(40_000):
        chance = random.random()
        weak = chance >= lost if chance < lost + won else random.random() < 0.7
        strong = chance < lost if chance < lost + won else weak
        weak, strong = (v != (random.random() < noise) for v in (weak, strong))
        seen[0] += strong and not weak
        seen[1] += weak and not strong
    for count, shown in zip(seen, odds.logits(0.0, noise), strict=True):
        assert abs(count / 40_000 - probability(shown)) < 0.01


def test_without_evidence_more_is_better_and_nothing_else_is_known() -> None:
    assert fit_odds([], []) == UNKNOWN
    assert UNKNOWN.logits(UNKNOWN.place(1.0))[0] < UNKNOWN.logits(UNKNOWN.place(0.0))[0]
