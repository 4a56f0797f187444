"""The command `circinus`: one file for each verb, imported when the verb is called.

Inside the verbs imports of heavy parts stay in functions, so that their help is printed at once.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, and print errors of the interface as one message, never as a traceback.

    With `--json` an error is one JSON document on standard output, usage errors too.
    """
    from circinus.cli.app import app

    as_json = "--json" in sys.argv
    try:
        code = app(prog_name="circinus", standalone_mode=not as_json)
    except KeyboardInterrupt:  # before a verb began
        code = 130
    except Exception as error:
        from circinus.cli.output import report_error

        code = report_error(error, as_json=as_json)
    sys.exit(code if isinstance(code, int) else 0)
