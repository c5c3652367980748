"""Throughput and cost, side by side with independent models."""
