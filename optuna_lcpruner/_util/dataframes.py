"""Tables of pandas, where that is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna_lcpruner._util.validation import missing


def dataframe(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows with the same columns as a ``pandas.DataFrame``.

    Raises:
        InputError: If pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise missing("a table", "pandas") from error
    return pd.DataFrame(list(rows))
