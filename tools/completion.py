"""Completion of the daemon's own options by bash, made from their declarations.

``gnt-luxi`` brings its own completion (click); twistd completes in zsh only.
"""

from __future__ import annotations

from typing import Any, cast

from ganeti_masterd.options import Options

#: Options whose value is a path.
_PATHS = frozenset({"--root", "--simulate"})

_TEMPLATE = """\
# bash completion for gnt-masterd: its options, and paths where an option takes one.
_gnt_masterd() {{
  local word=$2 before=$3
  COMPREPLY=()
  case $before in
    {paths})
      compopt -o filenames 2>/dev/null
      mapfile -t COMPREPLY < <(compgen -f -- "$word")
      return
      ;;
    {values})
      return
      ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W '{options}' -- "$word")
}}
complete -F _gnt_masterd gnt-masterd
"""


def bash_completion() -> str:
    """Returns the script that bash-completion loads for ``gnt-masterd``."""
    flags = [f"--{name}" for name, *_ in cast(list[list[Any]], Options.optFlags)]
    values = [f"--{name}" for name, *_ in Options.optParameters]
    return _TEMPLATE.format(
        paths=" | ".join(sorted(_PATHS)),
        values=" | ".join(sorted(set(values) - _PATHS)),
        options=" ".join(sorted(["--help", "--version", *flags, *values])),
    )
