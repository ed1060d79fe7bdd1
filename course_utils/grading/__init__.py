"""Grading of submitted notebooks on nbgrader; see docs/instructor-guide.md."""
