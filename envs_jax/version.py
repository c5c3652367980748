"""Version of the worlds; free of imports, so that a command line can say it without loading gymnax."""

VERSION = "2.1"
"""Of observations and rewards: results of different versions cannot be compared (``docs/changelog.md``)."""
