"""Games of several agents who act at once: a warehouse run by a team, and small Markov games as tables."""
