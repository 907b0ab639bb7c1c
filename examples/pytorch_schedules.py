"""PyTorch on the digits data, its learning rate falling by a schedule: cosine, or step drops.

python examples/pytorch_schedules.py    # needs torch

The loss of a training with drops halves in an epoch, late. The first trials run to their end, so
the pruner has seen drops before it expects them of others.
"""

import optuna
import torch
from shared import options, print_summary
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

from optuna_lcpruner import LearningCurvePruner


def main() -> None:
    args = options(__doc__, trials=60, epochs=40).parse_args()
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
            torch.nn.Linear(64, hidden),
            torch.nn.ReLU(),
            torch.nn.Dropout(trial.suggest_float("dropout", 0.0, 0.5)),
            torch.nn.Linear(hidden, 10),
        )
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=trial.suggest_float("lr", 1e-3, 1.0, log=True),
            momentum=trial.suggest_float("momentum", 0.0, 0.95),
        )
        if trial.suggest_categorical("schedule", ["cosine", "steps"]) == "cosine":
            schedule = CosineAnnealingLR(optimizer, args.epochs)
        else:
            schedule = MultiStepLR(optimizer, [args.epochs // 2, 3 * args.epochs // 4])
        batch_size = trial.suggest_int("batch_size", 16, 256, log=True)
        for epoch in range(args.epochs):
            model.train()
            for rows in torch.randperm(len(x_train)).split(batch_size):
                optimizer.zero_grad()
                cross_entropy(model(x_train[rows]), y_train[rows]).backward()
                optimizer.step()
            schedule.step()
            model.eval()
            with torch.no_grad():
                loss = cross_entropy(model(x_valid), y_valid).item()
            trial.report(loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a progress bar instead of a log
    study = optuna.create_study(
        study_name="pytorch-schedules",
        storage=args.storage,
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=LearningCurvePruner(n_steps=args.epochs),
    )
    study.optimize(objective, args.trials, show_progress_bar=True)
    print_summary(study, args.epochs)


if __name__ == "__main__":
    main()
