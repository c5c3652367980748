"""A team improves its policy by rollout on average-cost potentials, exact or estimated, serially or over devices."""
