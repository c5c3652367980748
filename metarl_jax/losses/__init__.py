"""Losses of single transitions and trajectories; callers vmap them."""
