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

from optuna_lcpruner import LearningCurvePruner, explain, report

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import ROOT, run_example

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]

BLOCK = re.compile(r"(?<=^<!-- printed: )([\w ,]+)( -->\n```\w*\n)(.*?)(?=^```$)", re.M | re.S)
TIMES = re.compile(r"(?: in)? \d+(?:\.\d+)? (?:s|ms|min)\b")
"""Times that something took, which do not matter."""
TRIAL = re.compile(r"(?<= --study quickstart-1 --trial )\d+")


def outputs(page: str) -> list[str]:
    """What the Python blocks of a page print, run in order as one module; of those that print.

    All blocks, or those below ``<!-- run -->`` where there are such.
    """
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    every = re.findall(r"^(<!-- run -->\n)?```python\n(.*?)^```$", text, re.M | re.S)
    codes = [code for mark, code in every if mark] or [code for _, code in every]
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
    head, end = ran.stdout.strip().split("\n\nTrained on: ")
    shown = re.findall(r"^  trial (\d+) (pruned: .*)$", head, re.M)
    trial, reason = shown[-1]
    study = optuna.load_study(
        study_name="quickstart-1", storage=f"sqlite:///{folder / 'quickstart.db'}"
    )
    (calibration,) = re.findall(
        r"^Does P\(beat best\).*?(?=\n\n[^\n]+\n---)", str(report(study)), re.M | re.S
    )
    (own,) = outputs("quickstart")
    either, both = outputs("combining")
    family, engine = outputs("extending")
    return {
        "quick start": head.strip(),
        "quick start, end": "Trained on: " + end.split("\n\n")[0],
        "reason": reason,
        "explain": str(explain(study, int(trial))),
        "report": calibration,
        "own objective": own,
        "behind": side_by_side(),
        "either": either,
        "both": both,
        "family": family,
        "engine": engine,
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
        return f"{quoted[1]}{quoted[2]}{blocks[quoted[1]].strip()}\n"

    for path in PAGES:
        text = BLOCK.sub(block, path.read_text(encoding="utf-8"))
        path.write_text(TRIAL.sub(trial, text), encoding="utf-8")


if __name__ == "__main__":
    main()
