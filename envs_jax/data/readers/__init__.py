"""Readers of the files in which a field exchanges its instances: one module a format, NumPy only.

Every module has a pure function of the text, ``parse(text, where)``, and every constructor that takes a file calls it
through :func:`load`. What is wrong is refused as ``<owner>.<field>: <file>:<line>: <what> must be <allowed>, got
<value>``, a ``ValueError`` of one line. docs/own_data.md says of each format what is read, ignored and refused.
"""

from envs_jax.data.readers import job_shop, landing, matpower, series, topology, trips
from envs_jax.data.readers.text import digest, load, path_of

__all__ = ["digest", "job_shop", "landing", "load", "matpower", "path_of", "series", "topology", "trips"]
