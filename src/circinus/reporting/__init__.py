"""Tables and texts of profiles, plans, explanations, load tests, simulations and engine status."""
