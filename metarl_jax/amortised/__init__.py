"""Learning to solve: prices predicted by a network, steps by learned update rules, adapted to a site by its past."""
