"""``should_stop(curve, completed=[...])``: the pruner's decision without an Optuna study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_lcpruner._util.validation import choice, integer
from optuna_lcpruner.decision.decision import Decision
from optuna_lcpruner.pruners.learning_curve import LearningCurvePruner
from optuna_lcpruner.study.history import StudyRecord

Curve = Mapping[int, float] | ArrayLike
"""Reports by step, or in order from step 0 on."""

_MAX_REMEMBERED = 8  # heuristic
"""Settings, and sets of completed trials, of which it is remembered what they say."""

_OF_A_STUDY = ("publish", "ledger", "control_fraction", "executor", "executor_timeout")
"""Settings of the pruner that take a study."""


def should_stop(
    curve: Curve,
    *,
    completed: Sequence[Curve] = (),
    running: Sequence[Curve] = (),
    stopped: Sequence[Curve] = (),
    final_values: Sequence[float] | None = None,
    n_steps: int | None = None,
    direction: str = "minimize",
    **settings: Any,
) -> Decision:
    """Decide whether to stop a training, from the curves of the others: for other schedulers.

    The decision is that of :class:`~optuna_lcpruner.LearningCurvePruner`, asked for the first time
    about the newest report of a trial in a study of all of these. What the completed trials say is
    remembered until another one completes, so that a scheduler may ask after each report. Nothing
    is logged or kept, but for a warning where lengths, steps or metric look wrong.

    Each curve is a mapping from steps to reports, or the reports in order, at steps 0, 1, 2, ...

    Args:
        curve: The training to decide about, so far.
        completed: The trainings that have gone to their end, in the order they began.
        running: The others that are under way.
        stopped: Those that were stopped on the way, whoever stopped them. They count among the
            trials begun, and early ranks take them for worse than whoever came further.
        final_values: What the completed trainings returned; by default their last report.
        n_steps: Steps of a full training; by default what the completed ones show.
        direction: ``"minimize"`` or ``"maximize"``, as in ``optuna.create_study``.
        settings: Those of :class:`~optuna_lcpruner.LearningCurvePruner`, say ``risk=0.02``, except
            those that take a study: ``publish``, ``ledger``, ``control_fraction``, ``executor`` and
            ``executor_timeout``.

    Returns:
        The decision; ``prune`` is the verdict, ``message`` the reason.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If one is out of range, or a completed training has neither reports nor value.

    Example:
        >>> import numpy as np
        >>> t = np.arange(20)
        >>> completed = [end - 0.7 * 0.8**t for end in (0.81, 0.84, 0.88, 0.9)]
        >>> behind = 0.6 - 0.5 * 0.8**t[:8]
        >>> decision = should_stop(behind, completed=completed, n_steps=20, direction="maximize")
        >>> decision.prune
        True
    """
    maximize = choice("direction", direction, ("minimize", "maximize")) == "maximize"
    for name in _OF_A_STUDY:
        if name in settings:
            raise TypeError(f"{name} is for a study; should_stop has none.")
    if final_values is not None and len(final_values) != len(completed):
        raise ValueError(
            "completed and final_values must be equally long, but got "
            f"{len(completed)} and {len(final_values)}."
        )
    pruner = _pruner(n_steps, settings)
    values = [None] * len(completed) if final_values is None else final_values
    ended = tuple(
        _Training.of("completed", other).returning(value)
        for other, value in zip(completed, values, strict=True)
    )
    record, trials = _history(pruner, maximize, ended)
    others = list(trials)
    for name, curves, state in (
        ("stopped", stopped, TrialState.PRUNED),
        ("running", running, TrialState.RUNNING),
    ):
        for other in curves:
            others.append(_Training.of(name, other).trial(len(others), state))
    asked = _Training.of("curve", curve).trial(len(others), TrialState.RUNNING)
    direction_ = StudyDirection.MAXIMIZE if maximize else StudyDirection.MINIMIZE
    study = cast(Study, GivenStudy(direction_, (*others, asked)))
    return pruner.judge.decide(study, asked, record, pruner.warn_once)


def _pruner(n_steps: int | None, settings: Mapping[str, Any]) -> LearningCurvePruner:
    """A pruner with these settings: the same as before, so that it warns of a thing once."""
    try:
        return _remembered_pruner(n_steps, **settings)
    except TypeError:  # a setting is wrong, or an engine cannot be a key
        return LearningCurvePruner(n_steps, **settings)


_remembered_pruner = lru_cache(_MAX_REMEMBERED, typed=True)(LearningCurvePruner)
"""A setting may be equal to another one and of the wrong type, as True is to 1."""


@dataclass(frozen=True)
class _Training:
    """A training's reports as a key: what is equal says the same.

    Attributes:
        steps: The steps, as they came.
        reports: The bytes of their values: a NaN is equal to itself.
        value: What it returned, if it has completed.
    """

    steps: tuple[int, ...]
    reports: bytes
    value: float | None = None

    @classmethod
    def of(cls, name: str, curve: Curve) -> _Training:
        """Read a curve.

        Raises:
            TypeError: If a step is no integer.
            ValueError: If a step is negative, or the values are no sequence of numbers.
        """
        if isinstance(curve, Mapping):
            steps = tuple(integer(f"a step of {name}", step, 0) for step in curve)
            values = np.array(list(curve.values()), dtype=float)
        else:
            values = np.asarray(curve, dtype=float)
            steps = tuple(range(values.size))
        if values.ndim != 1:
            raise ValueError(
                f"a curve of {name} must be one-dimensional, but got shape {values.shape}."
            )
        return cls(steps, values.tobytes())

    def returning(self, value: float | None) -> _Training:
        """The same, completed with a value; None: its last report.

        Raises:
            ValueError: If it has none.
        """
        if value is None:
            if not self.steps:
                raise ValueError("a completed training without reports needs a final value.")
            value = self.by_step[max(self.steps)]
        return _Training(self.steps, self.reports, float(value))

    @property
    def by_step(self) -> dict[int, float]:
        """Its reports."""
        return dict(zip(self.steps, np.frombuffer(self.reports).tolist(), strict=True))

    def trial(self, number: int, state: TrialState) -> FrozenTrial:
        """A trial that made these reports."""
        return FrozenTrial(
            number=number,
            trial_id=number,
            state=state,
            value=self.value,
            intermediate_values=self.by_step,
            datetime_start=None,
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
        )


@lru_cache(_MAX_REMEMBERED)
def _history(
    pruner: LearningCurvePruner, maximize: bool, completed: tuple[_Training, ...]
) -> tuple[StudyRecord, tuple[FrozenTrial, ...]]:
    """What is read of these trainings, at first nothing, and the trials that they are."""
    trials = (training.trial(i, TrialState.COMPLETE) for i, training in enumerate(completed))
    return pruner.judge.new_reader().new_record(maximize), tuple(trials)


@dataclass(frozen=True)
class GivenStudy:
    """What a pruner asks of a study, of trials that are at hand."""

    direction: StudyDirection
    trials: tuple[FrozenTrial, ...]
    study_name: str = "should_stop"

    @property
    def directions(self) -> list[StudyDirection]:
        """As of a study."""
        return [self.direction]

    def get_trials(
        self, deepcopy: bool = True, states: Iterable[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As of a study."""
        return [trial for trial in self.trials if states is None or trial.state in states]
