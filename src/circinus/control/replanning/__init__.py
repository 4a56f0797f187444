"""Other plans: for the nodes and files that there are, brought about step by step, and tried."""
