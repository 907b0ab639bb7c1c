"""Several pruners as one: prune if any of them would, or only if all of them would."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from optuna.logging import get_logger
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_lcpruner._util.optuna_storage import storage_of, trial_id_of
from optuna_lcpruner._util.redaction import redact
from optuna_lcpruner.decision.decision import OURS, Decision, Reason
from optuna_lcpruner.pruners.remote import RemotePruner
from optuna_lcpruner.records import trial_attributes
from optuna_lcpruner.records.location import Setting
from optuna_lcpruner.records.recorder import PendingDecision, current_sink, decisions_to
from optuna_lcpruner.study.stand_in import is_made_up

_logger = get_logger("optuna.lcpruner")


class _Combination(BasePruner):
    """Asks all of its pruners at each check and tells who decided.

    None is spared the question once the answer is known: some of Optuna's pruners
    (SuccessiveHalvingPruner, HyperbandPruner) keep a trial's rungs as they are asked, and compare
    later trials with them; LearningCurvePruner keeps its ledger.
    """

    _joined: staticmethod[[Iterable[object]], bool]  # the answer to these answers

    def __init__(self, pruners: Sequence[BasePruner]) -> None:
        if not isinstance(pruners, (list, tuple)):
            raise TypeError(f"pruners must be a list of pruners, but got {pruners!r}.")
        for pruner in pruners:
            if not isinstance(pruner, BasePruner):
                raise TypeError(f"pruners must be Optuna pruners, but one is {pruner!r}.")
        if not pruners:
            raise ValueError("pruners must have at least one pruner, but got none.")
        self._pruners = tuple(pruners)
        self._said: set[str] = set()

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether to stop the trial; see :class:`optuna.pruners.BasePruner`. Never raises.

        A pruner that raises is left out: it counts as one that would not prune, and the log says so
        once.
        """
        pending: list[PendingDecision] = []
        around = current_sink()
        with decisions_to(pending.append if around is None else around):
            answers = [self._ask(pruner, study, trial) for pruner in self._pruners]
        prune = self._joined([answer is True for answer in answers])
        if around is not None:  # a combination around this one, or a replay, has the decisions
            return prune
        if prune and not pending:
            self._show(study, trial, self._names(answers, True))
        for one in pending:
            one.record(self._outcome(one.decision, prune, answers))
        return prune

    def _ask(self, pruner: BasePruner, study: Study, trial: FrozenTrial) -> bool | None:
        """A pruner's answer; None if it raises."""
        try:
            return bool(pruner.prune(study, trial))
        except Exception as error:
            name = _name(pruner)
            if name not in self._said:
                self._said.add(name)
                words = redact(repr(error))
                _logger.warning(f"{type(self).__name__}: {name} raised, so it is left out: {words}")
            return None

    def _outcome(self, own: Decision, prune: bool, answers: Sequence[bool | None]) -> Decision:
        """What became of a decision of LearningCurvePruner."""
        if prune:
            reason = own.reason if own.prune else Reason.OTHER_PRUNER
            return own.made_by(self._names(answers, True), reason)
        if own.prune:
            return own.made_by(self._names(answers, False), Reason.OVERRULED)
        return own

    def _names(self, answers: Sequence[bool | None], prune: bool) -> list[str]:
        """The pruners that would prune, or those that would not."""
        return [
            _name(pruner) + (", which raised" if answer is None else "")
            for pruner, answer in zip(self._pruners, answers, strict=True)
            if (answer is True) is prune
        ]

    def _show(self, study: Study, trial: FrozenTrial, names: list[str]) -> None:
        """Publish a prune that no LearningCurvePruner was asked about."""
        decision = Decision(Reason.OTHER_PRUNER, "", trial.last_step, decided_by=tuple(names))
        _logger.info(f"Trial {trial.number}: {decision.message}")
        if not is_made_up(trial):
            shown = trial_attributes.attributes(decision)
            trial_attributes.writer().write(storage_of(study), trial_id_of(trial), shown)

    @property
    def ledger(self) -> Setting:
        """The setting ``ledger`` of the first pruner in it that has one."""
        settings = (getattr(pruner, "ledger", None) for pruner in self._pruners)
        return next((setting for setting in settings if setting is not None), None)

    def __repr__(self) -> str:
        return f"{type(self).__name__}([{', '.join(map(repr, self._pruners))}])"


class PruneIfAny(_Combination):
    """Stop a trial as soon as one of several pruners would.

    Each is asked at each check. Where one of them is a
    :class:`~optuna_lcpruner.LearningCurvePruner`, the trial attribute ``lcpruner_reason``
    and its ledger say who stopped the trial, and what it would have done itself.

    Args:
        pruners: The pruners; wrappers like ``PatientPruner`` and other combinations may be among
            them.

    Raises:
        TypeError: If they are no pruners.
        ValueError: If there are none.

    Example:
        >>> import optuna
        >>> from optuna.pruners import ThresholdPruner
        >>> from optuna_lcpruner import LearningCurvePruner
        >>> pruner = PruneIfAny([LearningCurvePruner(40), ThresholdPruner(upper=100.0)])
        >>> study = optuna.create_study(pruner=pruner)
        >>> trial = study.ask()
        >>> trial.report(1000.0, 0)
        >>> trial.should_prune()
        True
        >>> study.trials[0].user_attrs["lcpruner_reason"]
        'pruned by ThresholdPruner (LearningCurvePruner: too few reports: 1 of 2)'
    """

    _joined = staticmethod(any)


class PruneIfAll(_Combination):
    """Stop a trial only when all of several pruners would at the same check.

    Otherwise as :class:`PruneIfAny`. Where a
    :class:`~optuna_lcpruner.LearningCurvePruner` would stop a trial that runs on,
    ``lcpruner_reason`` and its ledger say who kept the trial.

    Args:
        pruners: The pruners, see :class:`PruneIfAny`.

    Raises:
        TypeError: If they are no pruners.
        ValueError: If there are none.
    """

    _joined = staticmethod(all)


def _name(pruner: BasePruner) -> str:
    name = OURS if isinstance(pruner, RemotePruner) else type(pruner).__name__
    if isinstance(pruner, _Combination):
        return f"{name}({', '.join(map(_name, pruner._pruners))})"
    return name
