"""Replanning: triggers, planning for the present nodes, stepwise rollout, and canary analysis."""
