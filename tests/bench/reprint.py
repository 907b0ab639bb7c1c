"""Print the benchmarks anew: run the commands of docs/benchmarks/*.txt and write their outputs.

    python tests/bench/reprint.py [--studies FOLDER] [NAME ...]

Each file NAME.txt begins with a command behind ``$ ``, continued by a backslash at the end of a
line, and goes on with what it printed; the pages include the files. FOLDER is what the commands
call ``STUDIES``; those that need it are left as they are without it. Commands run in the
repository's root.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "benchmarks"

_COMMAND = re.compile(r"\$ (?:.*\\\n)*.*\n")


def command_of(path: Path) -> str:
    """The command that a file begins with, as it stands there."""
    found = _COMMAND.match(path.read_text(encoding="utf-8"))
    if found is None:
        sys.exit(f"{path} does not begin with a command")
    return found[0]


def main() -> None:
    """Run the commands and write each file once its command has ended well."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="files, without .txt; or all")
    parser.add_argument("--studies", type=Path, help="the folder that commands call STUDIES")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the files are")
    arguments = parser.parse_args()
    paths = {path.stem: path for path in sorted(arguments.folder.glob("*.txt"))}
    unknown = set(arguments.names) - set(paths)
    if unknown:
        parser.error(f"unknown names {sorted(unknown)}; known are {', '.join(paths)}")
    bin_first = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    for name in arguments.names or paths:
        command = command_of(paths[name])
        line = command.removeprefix("$ ").replace("\\\n", " ")
        if "STUDIES" in line:
            if arguments.studies is None:
                print(f"left as it is: {name}")
                continue
            line = line.replace("STUDIES", str(arguments.studies.resolve()))
        line = re.sub(r"^python ", f"{sys.executable} ", line)
        print(f"{name}: $ {' '.join(line.split())}", flush=True)
        ran = subprocess.run(
            ["bash", "-c", line],
            cwd=ROOT,
            env=os.environ | {"PATH": bin_first},
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            sys.exit(f"failed, so the file keeps the output it has:\n{ran.stderr}")
        paths[name].write_text(command + ran.stdout.strip("\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
