"""The study ``energy``: allocation of energy by meta-learned solvers."""
