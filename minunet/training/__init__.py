"""Training: the record of a run's settings, its batches, its loop, and its output folder."""
