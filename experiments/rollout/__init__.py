"""The study ``rollout``: a team runs a warehouse by rollout on average-cost potentials."""
