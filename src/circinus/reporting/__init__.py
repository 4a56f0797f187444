"""What people look at: tables of profiles, plans, explanations, loads and states."""
