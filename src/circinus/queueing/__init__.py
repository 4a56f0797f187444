"""Queues, by formula and by recursion: how long requests wait for a station, whatever it stands for."""
