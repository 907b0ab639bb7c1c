"""PyTorch on the digits with a checkpoint an epoch: pruned trials go on where that is worth it.

python examples/resume_pytorch.py    # needs torch; a minute

After each trial ResumeCallback compares the pruned ones with a fresh one: chance to become the best
per epoch left. A trial that goes on loads the checkpoint of the one that it continues.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from shared import options, print_resumed, print_summary
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import cross_entropy

from optuna_lcpruner import LearningCurvePruner, ResumeCallback, resumed_from


def main() -> None:
    args = options(__doc__, trials=80, epochs=20).parse_args()
    torch.set_num_threads(1)  # so small a network trains faster on one thread than on many
    images, digits = load_digits(return_X_y=True)
    x_train, x_valid, y_train, y_valid = map(
        torch.tensor,
        train_test_split(
            images.astype("float32") / 16, digits, test_size=0.5, random_state=0, stratify=digits
        ),
    )

    def objective(trial: optuna.Trial) -> float:
        torch.manual_seed(0)
        hidden = trial.suggest_int("hidden", 8, 128, log=True)
        model = torch.nn.Sequential(
            torch.nn.Linear(64, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 10)
        )
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=trial.suggest_float("lr", 1e-3, 1.0, log=True),
            momentum=trial.suggest_float("momentum", 0.0, 0.95),
        )
        batch_size = trial.suggest_int("batch_size", 16, 256, log=True)
        first, point = 0, resumed_from(trial)
        if point is not None:  # another trial's checkpoint, and on from the epoch after
            saved = torch.load(checkpoint(point.number))
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            torch.set_rng_state(saved["rng"])
            first = point.step + 1
        for epoch in range(first, args.epochs):
            for rows in torch.randperm(len(x_train)).split(batch_size):
                optimizer.zero_grad()
                cross_entropy(model(x_train[rows]), y_train[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                loss = cross_entropy(model(x_valid), y_valid).item()
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "rng": torch.get_rng_state(),
            }
            torch.save(state, checkpoint(trial.number))  # before it can be pruned
            trial.report(loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    def can_resume(trial: FrozenTrial) -> bool:
        return checkpoint(trial.number).exists()

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a progress bar instead of a log
    pruner = LearningCurvePruner(n_steps=args.epochs)
    study = optuna.create_study(
        study_name="resume-pytorch",
        storage=args.storage,
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=pruner,
    )
    with TemporaryDirectory() as folder:

        def checkpoint(number: int) -> Path:
            return Path(folder, f"{number}.pt")

        callback = ResumeCallback(pruner, can_resume=can_resume)
        study.optimize(objective, args.trials, callbacks=[callback], show_progress_bar=True)
        if study.get_trials(states=[TrialState.WAITING]):  # one that the last trial brought about
            study.optimize(objective, n_trials=1)
    print_summary(study, args.epochs)
    print_resumed(study, "epoch")


if __name__ == "__main__":
    main()
