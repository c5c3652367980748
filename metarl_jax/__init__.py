"""Meta-reinforcement learning across resource-allocation domains."""
