"""The command `circinus`: one file for each verb. Imports of heavy parts stay inside the verbs."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, and print errors of the interface as one message, never as a traceback.

    With `--json` an error is one JSON document on standard output, usage errors too.
    """
    import typer

    from circinus.cli.app import app
    from circinus.cli.output import print_error, usage_error
    from circinus.errors import CircinusError

    as_json = "--json" in sys.argv
    usage_errors = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
    try:
        code = app(prog_name="circinus", standalone_mode=not as_json)
    except CircinusError as error:
        print_error(error, as_json=as_json)
        code = error.exit_code
    except OSError as error:  # a file or folder that cannot be read or written
        location = str(error.filename or "input/output")
        code = CircinusError.exit_code
        reason = error.strerror or str(error)
        print_error(CircinusError(reason, code="file.inaccessible", location=location), as_json=as_json)
    except KeyboardInterrupt:  # before a verb began
        code = 130
    except Exception as error:
        if not isinstance(error, usage_errors):
            raise
        print_error(usage_error(error), as_json=True)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)
