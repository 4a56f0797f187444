"""The command `circinus`: one file for each verb, imported when the verb is called.

Inside the verbs imports of heavy parts stay in functions, so that their help is printed at once.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

from circinus.cli.process import INTERRUPTED, exit_on_interrupt, is_interrupted_import, prepare_streams

_OUTPUT = "-o", "--output"
_OBJECTS_PER_COLLECTION = 300_000
"""New objects per garbage collection: imports and plans make many, and hardly any garbage; saves a tenth of imports."""
_GROUP_OPTIONS = "-v", "-vv", "--verbose", "-q", "--quiet"

_begin_s = time.monotonic()


def elapsed_s() -> float:
    """Return the seconds since the command began."""
    return time.monotonic() - _begin_s


def main() -> None:
    """Run the command line, and print errors of the interface as one message, never as a traceback.

    With `--json` an error is one JSON document on standard output, usage errors too.
    """
    global _begin_s
    _begin_s = time.monotonic()
    exit_on_interrupt()
    gc.set_threshold(_OBJECTS_PER_COLLECTION)
    atexit.register(gc.freeze)  # the last collection of the interpreter takes a tenth of short commands
    prepare_streams()
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # without a line of source
    from circinus.cli.app import app

    arguments, as_json = _arguments(sys.argv[1:])
    try:
        try:
            code = app(arguments, prog_name="circinus", standalone_mode=not as_json)
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
    except Exception as error:  # those that are not of the interface are raised again
        code = _report(error, as_json=as_json)
    sys.exit(code if isinstance(code, int) else 0)


def _report(error: Exception, *, as_json: bool) -> int:
    """Print an error, and return the exit code."""
    if is_interrupted_import(error):
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    from circinus.cli.output import report_error

    try:
        code = report_error(error, as_json=as_json)
        sys.stdout.flush()
    except OSError as failure:  # standard output takes nothing: its disk is full, or its reader has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor must what is flushed at the end fail
        code = getattr(error, "exit_code", 1)
        if not isinstance(failure, BrokenPipeError):
            with suppress(OSError):
                report_error(failure, as_json=False)
    return code


def _arguments(typed: Sequence[str]) -> tuple[list[str], bool]:
    """Return the arguments in the parser's order, and whether the output is JSON.

    `-o json` becomes `--json`. Options of the group come first; `--json` follows a verb, and is left out without one.
    """
    if "--" in typed:
        end = typed.index("--")
        arguments, as_json = _arguments(typed[:end])
        return [*arguments, *typed[end:]], as_json
    of_group: list[str] = []
    of_verb: list[str] = []
    for previous, argument in pairwise(["", *typed]):
        if argument in _GROUP_OPTIONS:
            of_group.append(argument)
        elif argument == "json" and previous in _OUTPUT:
            of_verb[-1] = "--json"
        else:
            of_verb.append("--json" if argument in ("--output=json", "-ojson") else argument)
    as_json = "--json" in of_verb
    verb = next((number for number, argument in enumerate(of_verb) if not argument.startswith("-")), None)
    if verb is None:
        return [*of_group, *(argument for argument in of_verb if argument != "--json")], as_json
    is_option = (n for n in range(verb, len(of_verb)) if of_verb[n].startswith("-"))
    options = next(is_option, len(of_verb))  # before them, as the last one may lack its value
    return [*of_group, *of_verb[verb:options], *of_verb[:verb], *of_verb[options:]], as_json
