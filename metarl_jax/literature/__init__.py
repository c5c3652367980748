"""The tasks of the literature: learners of the suite, by the same code, on tasks whose figures are published."""
