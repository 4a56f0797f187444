"""Driving example: operators, data set and metric of a pipeline from traffic clips to number plates."""
