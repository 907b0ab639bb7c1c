"""Decisions: what is known at once, what is worked out when it is read, and who decided."""

import pickle
import weakref

import pytest

from optuna_lcpruner.decision.decision import OURS, Decision, Description, Reason, abstain


def lazy(calls, **changes):
    """A decision that notes when it is put into words."""

    def describe():
        calls.append(1)
        return Description("pruned: P = 0.010 < 0.02", 0.5, 0.4, 0.6)

    return Decision(Reason.BELOW_THRESHOLD, describe, 7, 0.01, 0.02, 0.9, **changes)


def test_words_and_forecast_are_worked_out_once_and_when_they_are_read():
    calls = []
    decision = lazy(calls)
    assert decision.prune
    assert (decision.step, decision.p_beat, decision.threshold) == (7, 0.01, 0.02)
    assert not calls
    assert decision.message == "pruned: P = 0.010 < 0.02"
    assert (decision.low, decision.forecast, decision.high) == (0.4, 0.5, 0.6)
    assert calls == [1]


def test_it_lets_go_of_the_posterior_once_it_is_in_words():
    class Posterior:
        def __call__(self):
            return Description("undecided")

    posterior = Posterior()
    alive, decision = weakref.ref(posterior), Decision(Reason.UNDECIDED, posterior)
    del posterior
    assert alive() is not None
    assert decision.words == "undecided"
    assert alive() is None


def test_equal_is_what_says_the_same():
    told = Decision(
        Reason.BELOW_THRESHOLD, "pruned: P = 0.010 < 0.02", 7, 0.01, 0.02, 0.9, 0.5, 0.4, 0.6
    )
    assert lazy([]) == told
    assert hash(lazy([])) == hash(told)
    assert told != Decision(Reason.BELOW_THRESHOLD, "pruned", 7, 0.01, 0.02, 0.9, 0.5, 0.4, 0.6)
    assert told != lazy([], decided_by=("MedianPruner",))
    assert told != "pruned"
    assert repr(told) == repr(lazy([]))
    assert "message='pruned: P = 0.010 < 0.02', step=7" in repr(told)


def test_a_copy_for_another_process_is_in_words():
    calls = []
    copied = pickle.loads(pickle.dumps(lazy(calls)))
    assert calls == [1]
    assert copied == lazy([])


@pytest.mark.parametrize(
    ("own", "names", "reason", "message"),
    [
        ("pruned: P = 0.010", (OURS,), Reason.BELOW_THRESHOLD, f"pruned by {OURS}: P = 0.010"),
        (
            "pruned: P = 0.010",
            (OURS, "MedianPruner"),
            Reason.BELOW_THRESHOLD,
            f"pruned by {OURS} and MedianPruner ({OURS}: pruned: P = 0.010)",
        ),
        (
            "undecided: P = 0.3",
            ("ThresholdPruner",),
            Reason.OTHER_PRUNER,
            f"pruned by ThresholdPruner ({OURS}: undecided: P = 0.3)",
        ),
        (
            "pruned: P = 0.010",
            ("MedianPruner",),
            Reason.OVERRULED,
            f"overruled, runs on: not pruned by MedianPruner ({OURS}: pruned: P = 0.010)",
        ),
        ("", ("MedianPruner",), Reason.OTHER_PRUNER, "pruned by MedianPruner at step 7"),
    ],
)
def test_who_decided_is_said_before_the_words(own, names, reason, message):
    alone = Decision(Reason.BELOW_THRESHOLD, own, 7, 0.01)
    made = alone.made_by(names, reason)
    assert made.message == message
    assert made.words == alone.words == own
    assert (made.reason, made.decided_by, made.p_beat) == (reason, names, 0.01)


@pytest.mark.parametrize(("reason", "stays"), [(Reason.UNDECIDED, True), (Reason.OVERRULED, False)])
def test_another_decision_than_the_recorded_one_is_not_on_record(reason, stays):
    elsewhere = Decision(Reason.UNDECIDED, "undecided", recorded=True)
    assert elsewhere.made_by(("MedianPruner",), reason).recorded is stays


def test_abstain():
    assert abstain(Reason.STARTUP) == Decision(Reason.STARTUP, "startup")
    assert abstain(Reason.WARM_UP, "step 2 of 5", 2) == Decision(
        Reason.WARM_UP, "warm-up: step 2 of 5", 2
    )
    assert not abstain(Reason.FAILED).prune
    assert abstain(Reason.DIVERGED, "inf").prune


def test_only_the_pruning_reasons_prune_and_say_so():
    pruning = {reason for reason in Reason if reason.prunes}
    assert pruning == {
        Reason.DIVERGED, Reason.INFEASIBLE, Reason.BEHIND, Reason.BELOW_THRESHOLD,
        Reason.NARROW_FORECAST,
        Reason.OTHER_PRUNER,
    }  # fmt: skip
    for reason in Reason:
        assert reason.prunes is reason.value.startswith("pruned")
    assert len({reason.value for reason in Reason}) == len(Reason)
