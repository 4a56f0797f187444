"""Levels of wait: a level is a wait that a deployment of whole replicas keeps for all its requests.

1. `stations` finds the loads that replicas carry at a level, and `level_vectors` the loosest levels of a plan.
2. `catalogue` collects the plans of all queries, and `programme` the columns and modes of some of them.
3. `relaxation` prices them, and proves or improves answers; `search` finds these.
4. `judge` decides on an answer at the loads that it has, and `planner` corrects until its promises are kept.
"""
