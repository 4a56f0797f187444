"""How long profiling and the commands of planning take."""
