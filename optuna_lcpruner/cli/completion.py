"""``optuna-lcpruner completion``: what makes a shell complete commands and options."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

_BASH = """_optuna_lcpruner() {{
    local words
    case "${{COMP_WORDS[1]}}" in
{cases}
        *) words="{commands}" ;;
    esac
    [ "$COMP_CWORD" -eq 1 ] && words="{commands}"
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _optuna_lcpruner optuna-lcpruner
"""

_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"
"""What makes zsh read the same."""


def add_completion(commands: Any) -> None:
    """Add the command to the parsers of ``optuna-lcpruner``."""
    parser = commands.add_parser(
        "completion",
        help="print what makes a shell complete commands and options",
        description='For bash: eval "$(optuna-lcpruner completion bash)" in ~/.bashrc.',
    )
    parser.add_argument("shell", choices=("bash", "zsh"))
    parser.set_defaults(run=partial(_completion, commands))


def _completion(commands: Any, arguments: argparse.Namespace) -> None:
    cases = [
        f'        {name}) words="{" ".join(parser._option_string_actions)}" ;;'
        for name, parser in commands.choices.items()
    ]
    script = _BASH.format(cases="\n".join(cases), commands=" ".join(commands.choices))
    sys.stdout.write((_ZSH if arguments.shell == "zsh" else "") + script)
