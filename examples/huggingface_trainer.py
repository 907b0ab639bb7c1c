"""Hugging Face Trainer: a tiny BERT reads a digit's pixels as words. Nothing is downloaded.

python examples/huggingface_trainer.py    # needs torch, transformers, accelerate

Trainer.hyperparameter_search reports the metric at each evaluation, at global steps 20, 40, 60, ...
So the horizon is max_steps, in steps and not in evaluations.
"""

import os
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import optuna
import torch
import transformers
from shared import options, print_summary
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import Dataset

from optuna_lcpruner import LearningCurvePruner

EVERY = 20


class Digits(Dataset):
    """Images of 4 x 4 pixels as sentences of 16 words, a grey level 0..16 each; their digits."""

    def __init__(self, images: np.ndarray, digits: np.ndarray) -> None:
        coarse = images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).round()
        self.images = torch.tensor(coarse.reshape(-1, 16), dtype=torch.long)
        self.digits = torch.tensor(digits)

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.images[row], "labels": self.digits[row]}


def model(trial: optuna.Trial | None) -> torch.nn.Module:
    """A BERT of one layer, with random weights; Trainer also makes one without a trial."""
    width = 32 if trial is None else trial.suggest_categorical("width", [16, 32, 64])
    config = transformers.BertConfig(
        vocab_size=17,
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=16,
        initializer_range=0.2,  # the default of 0.02 is for wider models
        num_labels=10,
    )
    return transformers.BertForSequenceClassification(config)


def search_space(trial: optuna.Trial) -> dict[str, float | int]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 0.03, log=True),
        "per_device_train_batch_size": trial.suggest_categorical(
            "per_device_train_batch_size", [16, 32, 64]
        ),
        "warmup_steps": trial.suggest_int("warmup_steps", 0, 100),
    }


def main() -> None:
    args = options(__doc__, trials=20, steps=300).parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    x_train, x_valid, y_train, y_valid = train_test_split(
        *load_digits(return_X_y=True), test_size=0.2, random_state=0
    )
    study_name, storage = "huggingface-trainer", args.storage or optuna.storages.InMemoryStorage()
    with tempfile.TemporaryDirectory() as folder:
        trainer = transformers.Trainer(
            args=transformers.TrainingArguments(
                folder,
                max_steps=args.steps,
                eval_strategy="steps",
                eval_steps=EVERY,
                per_device_eval_batch_size=len(y_valid),
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                seed=0,
            ),
            model_init=model,
            train_dataset=Digits(x_train, y_train),
            eval_dataset=Digits(x_valid, y_valid),
        )
        trainer.remove_callback(transformers.PrinterCallback)  # Optuna's log is enough
        trainer.hyperparameter_search(
            search_space,
            compute_objective=lambda metrics: metrics["eval_loss"],
            n_trials=args.trials,
            direction="minimize",
            backend="optuna",
            study_name=study_name,
            storage=storage,
            sampler=optuna.samplers.TPESampler(seed=0),
            pruner=LearningCurvePruner(n_steps=args.steps),
        )
    study = optuna.load_study(study_name=study_name, storage=storage)
    print_summary(study, args.steps, "steps", every=EVERY)


if __name__ == "__main__":
    main()
