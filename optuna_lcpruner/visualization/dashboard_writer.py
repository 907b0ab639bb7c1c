"""Publishes a study's figures in the background, for ``LearningCurvePruner(dashboard=True)``.

A decision makes a publication owed. It is paid at once if nobody, in whatever process, has
published for a minute, else when the minute is over, by whoever claims it first; a claim made after
our news was on record pays for ours too. A trial that had not ended when the figures were drawn is
looked at again, so the figures show how it ended. What is owed as the process ends is paid then.
"""

from __future__ import annotations

import os
import random
import threading
import time
from dataclasses import dataclass, field
from multiprocessing import util

from optuna.logging import get_logger
from optuna.study import Study

from optuna_lcpruner._util.fork_safety import at_work
from optuna_lcpruner._util.redaction import words_of
from optuna_lcpruner.records import ledger_writer
from optuna_lcpruner.records.location import Setting
from optuna_lcpruner.visualization import dashboard

_logger = get_logger("optuna.lcpruner")

EVERY = 60.0
"""Seconds between two publications of a study, over all processes."""

DUTY = 0.1
"""Share of the time spent on drawing while the process goes on."""

TOGETHER = 1.0
"""Seconds within which processes that end at once leave the last publication to one of them."""


@dataclass
class _Owed:
    """A study of whose figures something is still to come.

    Attributes:
        study: The study.
        ledger: Where its decisions are.
        trials: Ids of the trials heard of that had not ended when last looked at.
        news: Whether there was a decision since.
        before: The claim that stood when the newest news was on record.
        due: Whether no publication has shown that news yet.
    """

    study: Study
    ledger: Setting
    trials: set[int] = field(default_factory=set)
    news: bool = True
    before: dashboard.Claim | None = None
    due: bool = False


class FigureWriter:
    """What is owed by this process, and the thread that pays it."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._owed: dict[tuple[int, int], _Owed] = {}
        self._new = False
        self._asked = 0
        self._answered = 0
        self._thread: threading.Thread | None = None
        self._warned = False

    def submit(self, study: Study, trial_id: int, ledger: Setting) -> None:
        """Publish the study's figures soon; never waits for the storage.

        Args:
            study: The study.
            trial_id: The trial that was decided about.
            ledger: Where the decision is, see :data:`~optuna_lcpruner.records.location.Setting`.
        """
        key = (id(study._storage), study._study_id)
        with self._condition:
            owed = self._owed.get(key)
            if owed is None:
                owed = self._owed[key] = _Owed(study, ledger)
                self._new = True
                self._condition.notify_all()
            owed.trials.add(trial_id)
            owed.news = True
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="lcpruner-dashboard", daemon=True
                )
                self._thread.start()

    def flush(self, timeout: float = 10.0) -> bool:
        """Publish what is owed, however fresh the figures; False if that fails or takes longer."""
        with self._condition:
            if not self._owed:
                return True
            self._asked = asked = self._asked + 1
            self._condition.notify_all()
            in_time = self._condition.wait_for(lambda: self._answered >= asked, timeout)
            return in_time and not any(o.due or o.news for o in self._owed.values())

    def _run(self) -> None:
        pause = 0.0
        while True:
            with self._condition:
                self._condition.wait_for(
                    lambda: self._new or self._is_asked(), pause if self._owed else None
                )
            pause = self._go_round()

    def _go_round(self) -> float:
        """Attend to all studies; seconds until the next round."""
        with self._condition:
            asked, self._new = self._asked, False
            round_of = list(self._owed.values())
        pauses = [self._attend(owed, asked > self._answered) for owed in round_of]
        with self._condition:
            self._owed = {
                key: owed
                for key, owed in self._owed.items()
                if owed.trials or owed.news or owed.due
            }
            self._answered = asked
            self._condition.notify_all()
        return min(pauses, default=EVERY)

    def _attend(self, owed: _Owed, hurry: bool) -> float:
        """Publish if it is due and our turn; seconds until it is worth another look."""
        try:
            self._take_news(owed)
            if not owed.due:
                return EVERY
            if hurry and owed.before is not None and not dashboard.is_ours(owed.before):
                # Other processes may be at their end as well, and the first shows what all did.
                time.sleep(TOGETHER * random.SystemRandom().random())
            return self._publish(owed, hurry)
        except Exception as error:  # whatever it is, the trials must not suffer
            if _is_deleted(owed.study):
                owed.trials, owed.news, owed.due = set(), False, False
            else:
                self._warn(f"{words_of(error)}; they are not up to date")
            return EVERY

    def _take_news(self, owed: _Owed) -> None:
        """Get what is new on record, and note which claim stood then."""
        with self._condition:
            news, owed.news = owed.news, False
            heard_of = set(owed.trials)
        try:
            with at_work():
                ended = heard_of - _under_way(owed.study) if heard_of else set()
            if news or ended:
                recorded = ledger_writer.flush()
                with at_work():
                    # One who claims from now on finds our news.
                    owed.before, owed.due = dashboard.standing(owed.study), True
                news = not recorded
            with self._condition:
                owed.trials -= ended
        finally:
            if news:
                owed.news = True

    def _publish(self, owed: _Owed, hurry: bool) -> float:
        with at_work():
            last = dashboard.standing(owed.study)
            mine = None
            if last == owed.before:
                mine = dashboard.claim(owed.study, 0.0 if hurry else EVERY)
                last = dashboard.standing(owed.study)
        if mine is None:
            owed.due = last == owed.before  # else claimed since, by one who read our news too
            return EVERY if last is None else max(1.0, dashboard.expires_in(last, EVERY))
        owed.before = mine
        for name in dashboard.FIGURES:
            start = time.monotonic()
            with at_work():
                if not dashboard.save(name, owed.study, owed.ledger, mine):
                    break
            self._rest(time.monotonic() - start)
        owed.due = False
        return EVERY

    def _is_asked(self) -> bool:
        return self._asked > self._answered

    def _rest(self, took: float) -> None:
        """Leave the processor and the storage to the training."""
        with self._condition:
            self._condition.wait_for(self._is_asked, took * (1.0 / DUTY - 1.0))

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            _logger.warning(f"Figures for optuna-dashboard: {message}.")


def _under_way(study: Study) -> set[int]:
    """Ids of the trials that have not ended."""
    trials = study.get_trials(deepcopy=False)
    return {trial._trial_id for trial in trials if not trial.state.is_finished()}


def _is_deleted(study: Study) -> bool:
    try:
        study._storage.get_study_name_from_id(study._study_id)
    except KeyError:
        return True
    except Exception:
        return False
    return False


_writer = FigureWriter()
_writer_pid: int | None = None


def writer() -> FigureWriter:
    """The writer of this process; a forked child has its own."""
    global _writer, _writer_pid
    if _writer_pid != os.getpid():
        _writer, _writer_pid = FigureWriter(), os.getpid()
        # Like atexit, but in the children of multiprocessing too; after the ledger's.
        util.Finalize(None, flush, exitpriority=0)
    return _writer


def flush(timeout: float = 10.0) -> bool:
    """Publish what this process owes; False if not all of it could be."""
    return _writer.flush(timeout) if _writer_pid == os.getpid() else True
