"""The default posterior: base rate, similar trials, early ranks and the curve in one distribution.

Glossary (f = n / T, the fraction of training seen; N completed trials; y* the study's best value):
    P_A   P(final > y*) by the analogues: what trials that looked like this one went on to gain
    P_E   P(final > y*) by the ensemble of parametric curves: what this curve alone suggests
    k     neighbours that the analogues' bandwidth reaches

    logit P = -ln(N + 1) + offset + fade sqrt(f) + a logit P_A + e logit P_E

is a logarithmic opinion pool for the question that decides: will this trial beat the best? Before
its curve a trial does so with probability 1 / (N + 1); that prior fades as the curve is seen. The
two opinions share most of their evidence, so each counts for less than one. As far as the curve is
of another kind than the completed ones (1 - plausible, see
:mod:`~optuna_lcpruner.posterior.analogues`), a is given to the ensemble, which then starts from
this curve's own first value, and no more than eight trials count against it in N; below one half
the ensemble does without the shapes learned from the others too. The same holds of a where the
study's best value is that of a trial without a curve: that no curve got there says nothing.

While few trials have completed there is one source more, the rank of the trial among all that came
as far (:mod:`~optuna_lcpruner.posterior.early_ranks`): logit P goes plausible / (N + 1) of the way
to what it says.

Where the k best count (``n_best``), y* is the k-th best value. The odds 1 / (N + 1) are those of a
probability 1 / (N + 2), so of k they are k / (N + 2 - k): the first summand is
ln k - ln(N + 2 - k).

How the final value lies on either side of y* is left to the mixture of both, in which the ensemble
counts as one more neighbour: weight 1 / (k + 1), the analogues k / (k + 1). Pool and mixture are
joined by Jeffrey's rule: the mass above y* is P, the mass below it 1 - P, the mixture's shape is
kept on each side.

Source: Genest & Zidek 1986, "Combining probability distributions: a critique and an annotated
bibliography" (logarithmic pool); Jeffrey 1965, "The logic of decision", chapter 11. The constants
(with a = e) are fitted to recorded studies by maximum likelihood, see docs/benchmarks.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.curves.scale import spanning, typical_start
from optuna_lcpruner.posterior import analogues
from optuna_lcpruner.posterior.closed_form.engine import ClosedForm
from optuna_lcpruner.posterior.forecast import Component, Forecast, Recalibration
from optuna_lcpruner.posterior.interface import StudyKnowledge, Target
from optuna_lcpruner.posterior.normalization import FAR

Array = NDArray[np.float64]

_PLAUSIBLE = 0.5
"""Below this a curve is said to be unlike the completed ones."""

_MOST_OF_ANOTHER_KIND = 8  # heuristic
"""A trial of another kind has a chance of at least one in this many and one to be the best."""

_CERTAINLY_PLAUSIBLE = 0.97
"""Above this nothing is said of another kind: a curve lies among the completed ones."""

_SUREST = 1e-5
"""No single opinion counts as surer than this."""


@dataclass(frozen=True)
class OpinionPool:
    """The default engine; without a completed trial it is the plain ensemble.

    Attributes:
        ensemble: The engine that judges the curve alone.
        offset: Log odds added to the chance of any trial.
        fade: Log odds that this chance gains, times sqrt(f), as the curve is seen.
        evidence: Weights a and e of the two opinions.
    """

    ensemble: ClosedForm = field(default_factory=ClosedForm)
    offset: float = 1.0
    fade: float = 0.6
    evidence: tuple[float, float] = (0.25, 0.25)

    def __call__(
        self, curve: LearningCurve, knowledge: StudyKnowledge, positions: Array | None = None
    ) -> Forecast:
        """See :class:`~optuna_lcpruner.posterior.Engine`."""
        return self.p_and_forecast(curve, knowledge, positions)[1]()

    def p_and_forecast(
        self, curve: LearningCurve, knowledge: StudyKnowledge, positions: Array | None = None
    ) -> tuple[float, Callable[[], Forecast]]:
        """See :class:`~optuna_lcpruner.posterior.FastEngine`."""
        if knowledge.final.size == 0:
            return self.ensemble.p_and_forecast(
                curve, _on_own_scale(curve, knowledge, 0.0), positions
            )
        peers = knowledge.cached("peers", lambda: _peers(knowledge))
        knots = curve.knots.nearest([curve.horizon] if positions is None else positions)
        found = peers.analogues(_without_gaps(curve), knots)
        self.ensemble.occurrence(curve.horizon, knowledge)  # of the study's scale, for all trials
        knowledge = _on_own_scale(curve, knowledge, found.plausible)
        ensemble = self.ensemble
        if found.plausible < _PLAUSIBLE:  # which shapes the others have says nothing either
            ensemble = replace(ensemble, learns=False)
        p_ensemble, alone = ensemble.p_and_forecast(curve, knowledge, positions)
        opinions = self._opinions(found, p_ensemble, curve, knowledge)
        return opinions.p_beat, lambda: _mixture(alone(), opinions, knowledge)

    def _opinions(
        self,
        found: analogues.Analogues,
        p_ensemble: float,
        curve: LearningCurve,
        knowledge: StudyKnowledge,
    ) -> _Opinions:
        p_analogues = float(found.p_above(np.array([knowledge.best]))[0])
        by_ranks = curve.p_by_ranks if knowledge.best_has_curve else None
        already = knowledge.target is Target.BEST and float(curve.values.max()) > knowledge.best
        if already:  # its best report is its value
            p_beat = 1.0
        else:
            a, e = self.evidence
            # Similar trials know nothing of a best value that none of the curves reached.
            similar = found.plausible * a if knowledge.best_has_curve else 0.0
            own = 0.0 if _in_a_transient(curve, knowledge, found) else e + a - similar
            unlike = (1.0 - found.plausible) * min(knowledge.n, _MOST_OF_ANOTHER_KIND)
            k, n = knowledge.n_best, found.plausible * knowledge.n + unlike
            log_odds = (
                math.log(k)
                - math.log(max(n + (2.0 - k), 1.0))
                + self.offset
                + self.fade * math.sqrt(curve.seen)
                + similar * _logit(p_analogues)
                + own * _logit(p_ensemble)
            )
            # Ranks say as little of another kind of curve, and of a value that no curve reached.
            if by_ranks is not None:
                share = found.plausible / (knowledge.final.size + 1.0)
                log_odds += share * (_logit(by_ranks) - log_odds)
            p_beat = 1.0 / (1.0 + math.exp(-log_odds))
        return _Opinions(found, p_analogues, p_ensemble, p_beat, by_ranks)


_BEST = np.array([1.0])
"""The best value of the study on the working scale."""


@dataclass(frozen=True)
class _Opinions:
    """What the sources say of the best value, and what that makes together."""

    analogues: analogues.Analogues
    p_analogues: float
    p_ensemble: float
    p_beat: float
    p_by_ranks: float | None

    def by_name(self, base_rate: float) -> dict[str, float]:
        """What each source says alone."""
        said = {
            "curve model": self.p_ensemble,
            "similar trials": self.p_analogues,
            "base rate": base_rate,
        }
        return said if self.p_by_ranks is None else {**said, "early ranks": self.p_by_ranks}


def _peers(knowledge: StudyKnowledge) -> analogues.ComparisonCurves:
    return analogues.ComparisonCurves.of(
        knowledge.completed,
        knowledge.final,
        knowledge.best,
        knowledge.scale.unit,
        knowledge.n_best,
    )


def _mixture(alone: Forecast, opinions: _Opinions, knowledge: StudyKnowledge) -> Forecast:
    """Ensemble and analogues in one distribution, P(beat the best) as pooled."""
    k = analogues.n_neighbours(knowledge.final.size)
    share = 1.0 - opinions.analogues.plausible * k / (k + 1.0)
    gained = _on_working_scale(opinions.analogues, knowledge)
    mixture = Forecast(
        positions=alone.positions,
        weights=np.r_[share * alone.weights, (1.0 - share) * opinions.analogues.weights],
        observed=_joined(alone.observed, gained),
        latent=_joined(alone.latent, gained),
        df=alone.df,
        scale=knowledge.scale,
        floor=alone.floor,
        shares={name: share * part for name, part in alone.shares.items()}
        | {"analogues": 1.0 - share},
        opinions=opinions.by_name(knowledge.base_rate),
    )
    if opinions.analogues.plausible < _PLAUSIBLE:
        mixture = replace(mixture, remark="unlike the completed trials, which therefore say little")
    below = float(mixture._cdf(_BEST, None, True)[0])
    return replace(mixture, recalibration=Recalibration(1.0, below, 1.0 - opinions.p_beat))


def _in_a_transient(
    curve: LearningCurve, knowledge: StudyKnowledge, found: analogues.Analogues
) -> bool:
    """Return whether a curve is far below where trainings of the study count as begun, as others.

    Where trainings start is cut off for transients, see
    :func:`~optuna_lcpruner.curves.scale.typical_start`. Before that point the families say nothing;
    how long the transient lasts, the others know.
    """
    z = (float(curve.on_knots[1][-1]) - knowledge.scale.location) / knowledge.scale.unit
    return z < -1.0 and found.plausible > _CERTAINLY_PLAUSIBLE


def _on_own_scale(
    curve: LearningCurve, knowledge: StudyKnowledge, plausible: float
) -> StudyKnowledge:
    """Return the knowledge on a scale that begins where this curve does, as far as it is strange.

    On the study's scale 0 is where trainings typically start. One of another kind that starts far
    below would be taken for one that has not moved, so its own start takes that place by the share
    in which it is of another kind.
    """
    scale = knowledge.scale
    own = typical_start(curve.values)
    if plausible > _CERTAINLY_PLAUSIBLE or not own < scale.location:
        return knowledge
    start = plausible * scale.location + (1.0 - plausible) * own
    return knowledge.on_scale(spanning(start, knowledge.best, scale.maximize))


def _without_gaps(curve: LearningCurve) -> Array:
    """Values on the knots from the first to the last seen, gaps filled on straight lines."""
    observed, values = curve.on_knots
    if observed[-1] == observed.size - 1:
        return values
    return np.interp(np.arange(observed[-1] + 1), observed, values)


def _logit(p: float) -> float:
    p = min(max(p, _SUREST), 1.0 - _SUREST)
    return math.log(p / (1.0 - p))


def _on_working_scale(found: analogues.Analogues, knowledge: StudyKnowledge) -> Component:
    """The analogues' components, linearised from x to z."""
    unit = knowledge.scale.unit
    with np.errstate(over="ignore", invalid="ignore"):
        location = (found.regret.to_values(found.x) - knowledge.scale.location) / unit
        spread = found.tau * found.regret.slope(found.x) / unit
        location = np.clip(np.nan_to_num(location, nan=-FAR), -FAR, FAR)
        spread = np.clip(np.nan_to_num(spread, nan=FAR), 1e-9, FAR)
    return Component(location, spread)


def _joined(first: Component, second: Component) -> Component:
    return Component(
        np.hstack([first.location, second.location]), np.hstack([first.scale, second.scale])
    )
