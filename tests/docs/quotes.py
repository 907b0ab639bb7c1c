"""What README and pages quote of outputs, and the command that quotes them anew.

    python tests/docs/quotes.py     # a minute

A block below ``<!-- printed: NAME -->`` is the NAME of `benchmarks` or of `examples`. The commands
that name a trial of the quick start name the last of those it shows.
"""

from __future__ import annotations

import io
import math
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import numpy as np
import optuna
from numpy.testing import assert_allclose
from optuna.pruners import BasePruner, MedianPruner, ThresholdPruner

from optuna_lcpruner import LearningCurvePruner, PruneIfAll, PruneIfAny, explain, report

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import ROOT, run_example

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]

BLOCK = re.compile(r"(?<=^<!-- printed: )([\w ,]+)( -->\n```\w*\n)(.*?)(?=^```$)", re.M | re.S)
TIMES = re.compile(r"(?: in)? \d+(?:\.\d+)? (?:s|ms|min)\b")
"""Times that something took, which do not matter."""
TRIAL = re.compile(r"(?<= --study quickstart-1 --trial )\d+")


def outputs(page: str) -> list[str]:
    """What the Python blocks of a page print, run in order as one module; of those that print."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    codes = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    module = ModuleType(f"page_{page}")
    sys.modules[module.__name__] = module
    found = []
    for i, code in enumerate(codes):
        output = io.StringIO()
        with redirect_stdout(output):
            exec(compile(code, f"{page}.md, block {i + 1}", "exec"), module.__dict__)
        if output.getvalue():
            found.append(output.getvalue())
    return found


def benchmarks() -> dict[str, str]:
    """Rows of a printed benchmark, by name of the block."""
    path = DOCS / "benchmarks" / "replay_recorded.txt"
    table, _, _ = path.read_text(encoding="utf-8").partition("\n\n")  # of all studies
    rows = {line.split()[0]: line for line in table.splitlines()}
    peers = "none median_w3 halving_eta4 hyperband patient_median default risk_0.02"
    risks = "none risk_0.01 risk_0.02 risk_0.03 default risk_0.06 risk_0.1"
    return {
        name: "\n".join(rows[row] for row in ("pruner", *names.split()))
        for name, names in (("peers", peers), ("risks", risks))
    }


def shortened(text: str) -> str:
    """A text that ends with a long table, without the middle of that."""
    above, _, table = text.rpartition("\n\n")
    lines = table.splitlines()
    return "\n".join([above, "", *lines[:4], "...", *lines[-4:]])


def reasons_of(pruner: BasePruner) -> str:
    """The first reason of each kind, by who would have stopped the trial."""

    def objective(trial: optuna.Trial) -> float:
        end = trial.suggest_float("end", 0.1, 1.0)
        speed = trial.suggest_float("speed", 2.0, 10.0)
        blows_up = trial.suggest_float("rate", 0.0, 1.0) > 0.9
        for epoch in range(40):
            loss = end + math.exp(-speed * (epoch + 1) / 40)
            if blows_up and epoch > 1:
                loss *= 4.0**epoch
            trial.report(loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=pruner)
    study.optimize(objective, n_trials=30)
    first: dict[str, str] = {}
    for trial in study.trials:
        reason = trial.user_attrs["lcpruner_reason"]
        if reason.startswith(("pruned", "overruled")):
            who = reason.split("P = ")[0].split(" (")[0]
            first.setdefault(who, f"trial {trial.number} {reason}")
    return "\n\n".join(first.values())


def side_by_side() -> str:
    """A reason by which one of 24 trainings side by side is stopped before any completes."""
    rng = np.random.default_rng(0)
    rates = rng.permutation(np.geomspace(0.01, 0.5, 24))
    study = optuna.create_study(pruner=LearningCurvePruner(n_steps=40))
    trials = {study.ask(): rate for rate in rates}
    reasons = []
    for epoch in range(39):
        for trial, rate in list(trials.items()):
            loss = 0.1 / rate**0.3 + math.exp(-rate * (epoch + 1)) + rng.normal(0.0, 0.05)
            trial.report(loss, epoch)
            if trial.should_prune():
                reasons.append(study.trials[trial.number].user_attrs["lcpruner_reason"])
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                del trials[trial]
    return reasons[len(reasons) // 2]


def examples(folder: Path) -> tuple[dict[str, str], str]:
    """Blocks by name, and the trial that commands name; the quick start runs in ``folder``."""
    ran = run_example("quickstart.py", folder=folder)
    assert ran.returncode == 0, ran.stderr
    shown = re.findall(r"^  trial (\d+) (pruned: .*)$", ran.stdout, re.M)
    trial, reason = shown[-1]
    study = optuna.load_study(
        study_name="quickstart-1", storage=f"sqlite:///{folder / 'quickstart.db'}"
    )
    (calibration,) = re.findall(
        r"^Does P\(beat best\).*?\n\n(.*?)(?=\n\n[^\n]+\n---)", str(report(study)), re.M | re.S
    )
    (own,) = outputs("quickstart")
    median = MedianPruner(n_startup_trials=10)
    either = PruneIfAny([LearningCurvePruner(40), ThresholdPruner(upper=10.0)])
    both = PruneIfAll([LearningCurvePruner(40, threshold=0.05), median])
    family, engine = (
        run_example(f"own_{part}.py", folder=folder).stdout for part in ("family", "engine")
    )
    _, _, second = run_example("second_study.py", folder=folder).stdout.rpartition("\n\n")
    return {
        "reason": reason,
        "explain": shortened(str(explain(study, int(trial)))),
        "report": calibration,
        "own objective": own,
        "behind": side_by_side(),
        "either": reasons_of(either),
        "both": reasons_of(both),
        "family": family,
        "engine": engine,
        "second study": second,
    }, trial


def assert_same(quoted: str, printed: str) -> None:
    """The same words, and numbers but for the last digits; how long it took does not matter."""
    number = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
    texts = [" ".join(TIMES.sub("", text).split()) for text in (quoted, printed)]
    assert re.sub(number, "#", texts[0]) == re.sub(number, "#", texts[1])
    told, found = (np.array(re.findall(number, text), dtype=float) for text in texts)
    assert_allclose(told, found, rtol=0.05, atol=2e-3)


def main() -> None:
    """Write the blocks and the trial's number into the pages."""
    with TemporaryDirectory() as folder:
        blocks, trial = examples(Path(folder))
    blocks |= benchmarks()

    def block(quoted: re.Match[str]) -> str:
        return f"{quoted[1]}{quoted[2]}{blocks[quoted[1]].strip(chr(10))}\n"

    for path in PAGES:
        text = BLOCK.sub(block, path.read_text(encoding="utf-8"))
        path.write_text(TRIAL.sub(trial, text), encoding="utf-8")


if __name__ == "__main__":
    main()
