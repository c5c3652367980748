"""Rules of practitioners that learn within an episode: what they estimate from observations, and what they do then.

A rule sees observations only, remembers a pytree of arrays, and has its constants in a NamedTuple of floats that
``python -m benchmarks.studies.tune_heuristics`` tunes.
"""
