"""The learner's progress: the file that keeps it, and the overview of it."""
