"""``forecast(values, n_steps=...)``: the same posterior on a plain list of numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from optuna_lcpruner._util.validation import choice
from optuna_lcpruner.curves.learning_curve import LearningCurve, StepMap, usable
from optuna_lcpruner.curves.scale import oriented, spanning
from optuna_lcpruner.posterior.engines import engine_of
from optuna_lcpruner.posterior.forecast import Forecast
from optuna_lcpruner.posterior.interface import Engine, StudyKnowledge, Target


@np.errstate(all="ignore")  # whatever the caller has made errors
def forecast(
    values: ArrayLike,
    *,
    n_steps: int,
    direction: str = "minimize",
    steps: ArrayLike | None = None,
    target: str = "last",
    engine: str | Engine = "closed_form",
) -> Forecast:
    """Forecast a learning curve without a study.

    Args:
        values: Reported values in order, shape (n,); NaN and infinite ones (beyond 1e300) are left
            out, at least two others are needed.
        n_steps: Steps of the full training, in the unit of ``steps``.
        direction: ``"minimize"`` or ``"maximize"``, as in ``optuna.create_study``.
        steps: The steps of the values, shape (n,), distinct; by default 0, 1, 2, ...
        target: ``"last"``: the value at the end; ``"best"``: the best value by then.
        engine: The posterior: ``"closed_form"``, ``"mcmc"`` for the paper's weighted combination
            (``diagnostics`` of the forecast say whether it converged), or any callable like
            :class:`~optuna_lcpruner.posterior.Engine`.

    Returns:
        The predictive distribution at every position ahead, the last being the horizon (at up to
        128 evenly spaced positions of a longer training, of which the newest, while reports are
        still to come to it, does not count yet). Position p is the p-th report.

    Raises:
        ValueError: If an argument is out of range, fewer than two values are finite, or nothing is
            left to forecast.

    Example:
        >>> ahead = forecast([0.60, 0.71, 0.76, 0.79, 0.81], n_steps=20, direction="maximize")
        >>> bool(0.8 < ahead.mean() < 0.95)
        True
        >>> ahead.p_beats(0.99) < 0.1
        True
    """
    maximize = choice("direction", direction, ("minimize", "maximize")) == "maximize"
    target = choice("target", target, ("last", "best"))
    if not (isinstance(n_steps, (int, float, np.number)) and 1 <= n_steps < np.inf):
        raise ValueError(f"n_steps must be a positive number, but got {n_steps!r}.")
    curve = _curve(values, n_steps, maximize, steps)
    # Half the scale is what was seen: the final value may lie as far ahead again.
    first, spread = float(curve.values[0]), float(np.ptp(curve.values))
    scale = spanning(first, first + 2.0 * spread, maximize)
    ahead = curve.knots.positions
    ahead = ahead[ahead > curve.positions[-1]]
    return engine_of(engine)(curve, StudyKnowledge(scale, Target(target)), ahead)


def _curve(
    values: ArrayLike, n_steps: int, maximize: bool, steps: ArrayLike | None
) -> LearningCurve:
    reports = np.asarray(values, dtype=float)
    if reports.ndim != 1:
        raise ValueError(f"values must be one-dimensional, but got shape {reports.shape}.")
    at = np.arange(reports.size, dtype=float) if steps is None else np.asarray(steps, dtype=float)
    if at.shape != reports.shape:
        raise ValueError(
            f"steps and values must be equally long, but got {at.shape} and {reports.shape}."
        )
    if not np.all(np.isfinite(at)):
        raise ValueError(f"steps must be finite, but got {steps!r}.")
    order = np.argsort(at, kind="stable")
    at, reports = at[order], reports[order]
    if at.size and (at[0] < 0 or np.any(np.diff(at) == 0)):
        raise ValueError(f"steps must be non-negative and distinct, but got {steps!r}.")
    finite = usable(reports)
    if np.count_nonzero(finite) < 2:
        raise ValueError(f"at least two finite values are needed, but got {values!r}.")
    step_map = StepMap.of(at)
    positions, horizon = step_map.position(at), step_map.horizon(n_steps)
    if not positions[-1] < horizon:
        raise ValueError(
            f"n_steps must lie beyond the last step, but got n_steps={n_steps} "
            f"with {reports.size} values up to step {at[-1]:g}."
        )
    return LearningCurve(positions[finite], oriented(reports[finite], maximize), horizon)
