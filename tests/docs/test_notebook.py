"""The notebook: it runs, and its text says what it printed."""

from __future__ import annotations

import re
from typing import Any

import notebook
import pytest

NUMBER_OF = r"(\d+) of (\d+) stopped trials would have"


def of_type(cells: Any, kind: str) -> list[Any]:
    return [cell for cell in cells["cells"] if cell["cell_type"] == kind]


def outputs(cells: Any) -> list[tuple[str, str]]:
    """What the cells show: the kind of each output, and what of it is text."""
    found = []
    for cell in of_type(cells, "code"):
        for output in cell["outputs"]:
            data = output.get("data", {"text/plain": output.get("text", "")})
            kind = " ".join([output["output_type"], *sorted(data)])
            text = data.get("text/html", data["text/plain"])
            found.append((kind, "".join(text)))
    return found


def test_it_is_stored_as_it_ran_and_says_nothing_of_the_machine() -> None:
    cells = of_type(notebook.stored(), "code")
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert notebook.stored()["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    text = notebook.NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 300_000
    # The pictures are base64, in which a slash means nothing.
    shown = "".join(text for _, text in outputs(notebook.stored()))
    assert not re.search(r'(?<![\w"/.<])/\w+/|[A-Z]:\\|https?://|sqlite:', shown)
    assert not any(o.get("name") == "stderr" for cell in cells for o in cell["outputs"])


def test_it_shows_tables_and_a_figure() -> None:
    kinds = {kind for kind, _ in outputs(notebook.stored())}
    assert "execute_result text/html text/plain" in kinds
    assert "display_data image/png text/plain" in kinds


def test_its_end_says_what_the_last_cell_printed() -> None:
    *_, (_, printed) = outputs(notebook.stored())
    said = "".join(of_type(notebook.stored(), "markdown")[-1]["source"])
    assert re.findall(NUMBER_OF, said) == re.findall(NUMBER_OF, printed) != []


@pytest.mark.slow
def test_it_runs() -> None:
    """Shortened, and where sums are rounded otherwise, it may find others, but shows as much."""
    pytest.importorskip("sklearn")
    pytest.importorskip("ipykernel")
    stored, printed = outputs(notebook.stored()), outputs(notebook.executed(shorter=True))
    assert [kind for kind, _ in stored] == [kind for kind, _ in printed]
    assert re.search(NUMBER_OF, printed[-1][1])
