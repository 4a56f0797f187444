"""Queueing models of stations, by formula and by recursion, independent of what a station represents."""
