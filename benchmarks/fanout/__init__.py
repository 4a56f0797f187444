"""Fan-outs and branches: is what planning assumes about them true, and what does it cost to ignore them?"""
