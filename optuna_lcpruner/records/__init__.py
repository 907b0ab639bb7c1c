"""Where decisions are kept: the log, the trial's attributes, the ledger."""

from optuna_lcpruner.records.ledger import LedgerEntry, LedgerError

__all__ = [
    "LedgerEntry",
    "LedgerError",
]
