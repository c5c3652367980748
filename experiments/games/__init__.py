"""The study ``games``: exact values and equilibrium Q-learning of general games."""
