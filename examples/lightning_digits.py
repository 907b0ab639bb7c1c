"""Lightning on the digits data; the number of epochs is a hyper-parameter.

python examples/lightning_digits.py    # needs lightning

The callback of optuna-integration reports epochs from 0 on and leaves the sanity check out.
"""

import logging
import warnings

import lightning
import optuna
import torch
from optuna_integration import PyTorchLightningPruningCallback
from shared import options, print_summary
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from optuna_lcpruner import LearningCurvePruner, set_n_steps


class Network(lightning.LightningModule):
    """One hidden layer."""

    def __init__(self, hidden: int, dropout: float, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(64, hidden),
            torch.nn.ReLU(),
            torch.nn.Dropout(dropout),
            torch.nn.Linear(hidden, 10),
        )

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        x, y = batch
        return cross_entropy(self.layers(x), y)

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        x, y = batch
        self.log("val_loss", cross_entropy(self.layers(x), y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.lr)


def main() -> None:
    args = options(__doc__, trials=40, epochs=30).parse_args()
    torch.set_num_threads(1)  # so small a network trains faster on one thread than on many
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "The '.*_dataloader' does not have many workers")
    images, digits = load_digits(return_X_y=True)
    x_train, x_valid, y_train, y_valid = map(
        torch.tensor,
        train_test_split(
            images.astype("float32") / 16, digits, test_size=0.5, random_state=0, stratify=digits
        ),
    )
    valid = DataLoader(TensorDataset(x_valid, y_valid), batch_size=len(x_valid))

    def objective(trial: optuna.Trial) -> float:
        epochs = trial.suggest_int("epochs", args.epochs // 2, args.epochs)
        set_n_steps(trial, epochs)
        torch.manual_seed(0)
        network = Network(
            trial.suggest_int("hidden", 8, 128, log=True),
            trial.suggest_float("dropout", 0.0, 0.5),
            trial.suggest_float("lr", 1e-4, 0.3, log=True),
        )
        batch_size = trial.suggest_int("batch_size", 32, 256, log=True)
        train = DataLoader(TensorDataset(x_train, y_train), batch_size, shuffle=True)
        trainer = lightning.Trainer(
            max_epochs=epochs,
            callbacks=[PyTorchLightningPruningCallback(trial, "val_loss")],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(network, train, valid)
        return trainer.callback_metrics["val_loss"].item()

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a progress bar instead of a log
    study = optuna.create_study(
        study_name="lightning-digits",
        storage=args.storage,
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=LearningCurvePruner(),
    )
    study.optimize(objective, args.trials, show_progress_bar=True)
    print_summary(study, args.epochs)


if __name__ == "__main__":
    main()
