"""`python -m circinus`."""

from circinus.cli import main

main()
