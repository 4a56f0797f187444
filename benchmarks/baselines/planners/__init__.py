"""Other planners in a contest, by their published descriptions; each module says what was simplified."""
