"""Explanations of a matching: reasons for plans and rejections, SLO relaxations, and shadow prices of resources."""
