"""Where decisions are kept: the log, the trial's attributes, the ledger."""

from optuna_lcpruner.records.ledger import Entry, LedgerError

__all__ = [
    "Entry",
    "LedgerError",
]
