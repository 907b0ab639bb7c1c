"""Print the benchmarks of a page anew: run each command in it and put its output in place.

    python tests/bench/reprint.py docs/benchmarks.md --studies FOLDER [--only replay.py tpe]

In the page a command stands in a ``text`` block behind ``$ ``, continued by a backslash at the end
of a line, and its output below it, up to the next command or the end of the block. FOLDER is what
the page calls ``STUDIES``; commands that need it are left as they are without it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

_BLOCK = re.compile(r"(?<=^```text\n)\$ .*?(?=^```$)", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ (?:.*\\\n)*.*\n", re.MULTILINE)


def commands(page: str) -> list[str]:
    """The commands of a page, as they stand in it."""
    return [found for block in _BLOCK.findall(page) for found in _COMMAND.findall(block)]


def replaced(page: str, command: str, output: str) -> str:
    """The page with this output below the command."""
    start = page.index(command) + len(command)
    end = re.compile(r"^(?:```|\$ )", re.MULTILINE).search(page, start)
    assert end is not None, "the block does not end"
    return page[:start] + output.rstrip("\n") + "\n" + page[end.start() :]


def main() -> None:
    """Run the commands and write the page after each of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path)
    parser.add_argument("--studies", type=Path, help="the folder that the page calls STUDIES")
    parser.add_argument("--only", nargs="+", default=[], help="texts that a command has to contain")
    arguments = parser.parse_args()
    for command in commands(arguments.page.read_text(encoding="utf-8")):
        line = command.removeprefix("$ ").replace("\\\n", " ")
        if not all(text in line for text in arguments.only):
            continue
        if "STUDIES" in line and arguments.studies is None:
            print(f"left as it is: {' '.join(line.split())}")
            continue
        line = line.replace("STUDIES", str(arguments.studies))
        line = re.sub(r"^python ", f"{sys.executable} ", line)
        print(f"$ {' '.join(line.split())}", flush=True)
        ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
        if ran.returncode:
            sys.exit(f"failed, so the page keeps the output it has:\n{ran.stderr}")
        page = arguments.page.read_text(encoding="utf-8")  # others may have edited it meanwhile
        arguments.page.write_text(replaced(page, command, ran.stdout), encoding="utf-8")


if __name__ == "__main__":
    main()
