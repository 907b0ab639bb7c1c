"""A forecaster that a test steps through, with a clock of its own, and what it leaves behind."""

from __future__ import annotations

from typing import Any

from helpers import reports
from optuna.study import Study
from optuna.trial import Trial

from optuna_lcpruner import Forecaster, LearningCurvePruner
from optuna_lcpruner.records.remote_decision import ATTRIBUTE, RemoteVerdict
from optuna_lcpruner.service.events import Event


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Watching:
    """A forecaster of some studies, with a clock of its own and its events."""

    def __init__(self, storage: Any, names: list[str] | None = None, **settings: Any) -> None:
        self.clock = Clock()
        self.events: list[Event] = []
        pruner = settings.pop("pruner", None) or LearningCurvePruner(20, threshold=0.05)
        self.forecaster = Forecaster(
            storage, names, pruner, tell=self.events.append, clock=self.clock, **settings
        )

    def look(self, seconds: float = 3.0) -> None:
        """Passes, twice a second."""
        for _ in range(int(2 * seconds)):
            self.clock.now += 0.5
            self.forecaster.run_pass()

    def named(self, name: str) -> list[dict[str, Any]]:
        return [dict(event.facts) for event in self.events if event.name == name]

    @property
    def judged(self) -> list[tuple[int, int]]:
        """Trial and reports of each verdict."""
        return [(facts["trial"], facts["reports"]) for facts in self.named("verdict")]


def running(study: Study, values: Any, **user_attrs: Any) -> Trial:
    trial = study.ask()
    for key, value in user_attrs.items():
        trial.set_user_attr(key, value)
    for step, value in reports(values).items():
        trial.report(value, step)
    return trial


def verdict_of(study: Study, trial: Trial) -> RemoteVerdict:
    found = study._storage.get_trial(trial._trial_id).system_attrs[ATTRIBUTE]
    return RemoteVerdict.from_json(found)


def covers(study: Study, trial: Trial) -> bool:
    """Whether a verdict rests on all its reports."""
    seen = study._storage.get_trial(trial._trial_id)
    return ATTRIBUTE in seen.system_attrs and verdict_of(study, trial).covers(seen)
