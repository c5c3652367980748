"""How fast: steps a second, the cost of a meta-gradient step, the cost of compiling."""
