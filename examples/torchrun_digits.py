"""PyTorch on several processes, each with a part of every batch: one trial trains on all of them.

torchrun --nproc-per-node 2 examples/torchrun_digits.py    # needs torch, optuna-integration

Rank 0 has the study and its pruner. TorchDistributedTrial tells the other ranks what was suggested
and whether to stop, so that all stop after the same epoch.
"""

import contextlib
import warnings

import optuna
import torch
import torch.distributed as dist
from optuna_integration import TorchDistributedTrial
from shared import options, print_summary
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from optuna_lcpruner import LearningCurvePruner


def main() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "TorchDistributedTrial is experimental")
    dist.init_process_group("gloo")  # with "nccl" the trial makes a gloo group for itself
    rank, ranks = dist.get_rank(), dist.get_world_size()
    lengths = [(0, 0)]
    if rank == 0:  # the only one to open the database: two at once might both make its tables
        args = options(__doc__, trials=30, epochs=30).parse_args()
        lengths = [(args.trials, args.epochs)]
    dist.broadcast_object_list(lengths)
    ((trials, epochs),) = lengths
    images, digits = load_digits(return_X_y=True)
    x_train, x_valid, y_train, y_valid = map(
        torch.tensor,
        train_test_split(
            images.astype("float32") / 16, digits, test_size=0.5, random_state=0, stratify=digits
        ),
    )

    def objective(single: optuna.Trial | None) -> float:
        trial = TorchDistributedTrial(single)  # None but on rank 0
        hidden = trial.suggest_int("hidden", 8, 128, log=True)
        torch.manual_seed(0)  # the same rows in the same order on all ranks
        model = DistributedDataParallel(
            torch.nn.Sequential(
                torch.nn.Linear(64, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 10)
            )
        )
        rate = trial.suggest_float("lr", 1e-3, 1.0, log=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
        for epoch in range(epochs):
            for rows in torch.randperm(len(x_train)).split(64):
                own = rows[rank::ranks]
                optimizer.zero_grad()
                cross_entropy(model(x_train[own]), y_train[own]).backward()
                optimizer.step()
            with torch.no_grad():
                loss = cross_entropy(model.module(x_valid), y_valid).item()
            trial.report(loss, epoch)  # on all ranks; the value of rank 0 counts
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if rank == 0:
        study = optuna.create_study(
            study_name="torchrun-digits",
            storage=args.storage,
            direction="minimize",
            sampler=optuna.samplers.TPESampler(seed=0),
            pruner=LearningCurvePruner(n_steps=epochs),
        )
        study.optimize(objective, trials)
        print_summary(study, epochs)
    else:
        for _ in range(trials):
            with contextlib.suppress(optuna.TrialPruned):
                objective(None)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
