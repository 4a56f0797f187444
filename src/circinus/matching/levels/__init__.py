"""Levels of wait: a level is a wait that a deployment of whole replicas keeps for all its requests.

`stations` finds the load that replicas carry at a level, and `judge` decides on plans at the loads that they have.
"""
