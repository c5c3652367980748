"""Which learner adapts best to new tasks, all given the same?"""
