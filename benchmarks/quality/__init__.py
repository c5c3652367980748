"""How good: adaptation headroom, bounds on what any policy earns, pictures of episodes, the table of the README."""
