"""The command ``optuna-lcpruner``."""
