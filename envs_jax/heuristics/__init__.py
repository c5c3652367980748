"""Heuristics too long for their domain's file: rules that estimate a model within the episode and plan with it."""
