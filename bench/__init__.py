"""Benches: minunet against what people use today, in one process, after a check of the result."""
