"""What every posterior engine takes and gives: a curve and what the study knows -> Forecast."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import numpy as np

from optuna_lcpruner._util.arrays import Array
from optuna_lcpruner.curves.learning_curve import LearningCurve
from optuna_lcpruner.curves.scale import Scale, spanning
from optuna_lcpruner.posterior.forecast import Forecast

Made = TypeVar("Made")


class Target(Enum):
    """Which reported value the objective returns as its own."""

    LAST = "last"
    BEST = "best"


@dataclass(frozen=True)
class StudyKnowledge:
    """What the study's other trials say, as far as an engine may use it.

    Attributes:
        scale: Working scale of the study.
        target: Whether the final value is the last or the best reported one.
        completed: Oriented values of the completed trials that reported, on the knots of the
            curve's horizon, gaps filled, shape (N, n_knots).
        final: Their objective values, oriented, shape (N,).
        n_completed: N, the trials of which the best value is the best; by default all that are
            here. Those that break the study's constraints are none of them.
        n_best: k, how many trials count as the best; what is to be beaten, and is called the best
            value here, is the k-th best value.

    What engines work out of it once for all trials, they keep with :meth:`cached`.
    """

    scale: Scale
    target: Target = Target.LAST
    completed: Array = field(default_factory=lambda: np.empty((0, 0)))
    final: Array = field(default_factory=lambda: np.empty(0))
    n_completed: int | None = None
    n_best: int = 1
    _made: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def cached(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What ``make`` gives, called at the first use of the key."""
        if key not in self._made:
            self._made[key] = make()
        return cast(Made, self._made[key])

    def without(self, index: int) -> StudyKnowledge | None:
        """Return what the study would know without one of the completed trials.

        Its best value is then the best of the others that are not better than this one: with
        ``n_best`` = 1 only trials that break constraints can be better. What engines have cached
        is kept where it does not depend on single trials: shapes and noise.

        Args:
            index: The trial's row in ``completed``.

        Returns:
            None if there is no such value.
        """
        final = np.delete(self.final, index)
        lower = final[final < self.final[index]]
        if lower.size == 0:
            return None
        start = min(self.scale.location, float(np.min(lower)))
        scale = spanning(start, float(np.max(lower)), self.scale.maximize)
        n = None if self.n_completed is None else max(self.n_completed - 1, 0)
        completed = np.delete(self.completed, index, 0)
        other = StudyKnowledge(scale, self.target, completed, final, n, self.n_best)
        other._made.update({key: made for key, made in self._made.items() if key != "peers"})
        return other

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}}  # quickly made again where it is sent

    @property
    def best(self) -> float:
        """Value to beat, the study's ``n_best``-th best, oriented; 1 on the working scale."""
        return self.scale.location + self.scale.unit

    @property
    def best_row(self) -> int | None:
        """The row of ``completed`` that has the best value; None where its trial has no curve."""
        if self.final.size == 0:
            return None
        apart = np.abs(self.final - self.best)
        nearest = int(np.argmin(apart))
        return nearest if apart[nearest] <= 1e-9 * (self.scale.unit + abs(self.best)) else None

    @property
    def best_has_curve(self) -> bool:
        """Whether a completed curve led to the best value; one too old to be here counts."""
        return self.best_row is not None or self.n > self.final.size

    @property
    def n(self) -> int:
        """N, the trials of which the best value is the best; at least one has it."""
        return max(self.final.size if self.n_completed is None else self.n_completed, 1)

    @property
    def base_rate(self) -> float:
        """Chance of a trial to beat the best before its curve is seen, k / (N + 1).

        Of N + 1 trials, any of them may be the new one, k are the best k; all, if there are fewer.
        """
        return min(1.0, self.n_best / (self.n + 1.0))

    def on_scale(self, scale: Scale) -> StudyKnowledge:
        """Return the same knowledge on another working scale, with what is cached."""
        other = replace(self, scale=scale)
        object.__setattr__(other, "_made", self._made)
        return other


class Engine(Protocol):
    """A posterior: learning curve + study knowledge -> predictive distribution.

    Engines are pure: no I/O, no global random state, the same answer for the same arguments.
    """

    def __call__(
        self, curve: LearningCurve, knowledge: StudyKnowledge, positions: Array | None = None
    ) -> Forecast:
        """Forecast the curve.

        Args:
            curve: The part seen, larger is better.
            knowledge: What the study knows.
            positions: Future positions wanted, increasing, the last one the horizon; by default
                the horizon alone.
        """
        ...


@runtime_checkable
class FastEngine(Engine, Protocol):
    """An engine that knows the probability that decides before it has the whole distribution."""

    def p_and_forecast(
        self, curve: LearningCurve, knowledge: StudyKnowledge, positions: Array | None = None
    ) -> tuple[float, Callable[[], Forecast]]:
        """P(beats the best value of the study), and what gives the forecast it belongs to.

        The same as calling the engine and the forecast's ``p_beats``, in less time until somebody
        wants to see the forecast.
        """
        ...
