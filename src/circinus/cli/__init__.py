"""The command `circinus`: one file a verb. Imports of heavy parts stay inside the verbs."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; errors of the interface are printed as one message, never as a traceback."""
    from circinus.cli.app import app
    from circinus.cli.output import print_error
    from circinus.errors import CircinusError

    try:
        app()
    except CircinusError as error:
        print_error(error, as_json="--json" in sys.argv)
        sys.exit(error.exit_code)
    except OSError as error:  # a file or folder that cannot be read or written
        print_error(
            CircinusError(f"{error.filename or 'input/output'}: {error.strerror or error}"),
            as_json="--json" in sys.argv,
        )
        sys.exit(CircinusError.exit_code)
    except KeyboardInterrupt:  # before a verb began
        sys.exit(130)
