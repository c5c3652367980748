"""The entry point ``literature``: one learner on one task of the literature, beside what was published."""
