"""The notebook in ``examples/``, and the command that runs it and stores its outputs.

python tests/docs/notebook.py    # a minute
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

NOTEBOOK = Path(__file__).parents[2] / "examples" / "digits.ipynb"


def stored() -> dict[str, Any]:
    """The notebook as it lies in the repository."""
    notebook: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return notebook


SHORTER = {"EPOCHS = 30": "EPOCHS = 15", "n_trials=40": "n_trials=20"}
"""What is replaced in the code for a search that takes a few seconds."""


def executed(shorter: bool = False) -> dict[str, Any]:
    """The notebook as a kernel of this Python has run it, in a folder of its own."""
    import nbformat
    from nbclient import NotebookClient

    text = NOTEBOOK.read_text(encoding="utf-8")
    for long, short in SHORTER.items() if shorter else ():
        assert long in text
        text = text.replace(long, short)
    notebook = nbformat.reads(text, as_version=4)
    with TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": folder}},
        )
        # A note of tqdm about a progress bar that is not shown.
        client.execute(env={**os.environ, "PYTHONWARNINGS": "ignore:IProgress not found"})
    ran: dict[str, Any] = json.loads(nbformat.writes(notebook))
    ran["metadata"] = stored()["metadata"]  # without the versions that happened to run it
    return ran


def main() -> None:
    """Write the executed notebook in place of the stored one, or to the file that is named."""
    text = json.dumps(executed(), indent=1, ensure_ascii=False) + "\n"
    Path(sys.argv[1] if sys.argv[1:] else NOTEBOOK).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
