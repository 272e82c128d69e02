"""A corpus of real media files whose truth is known: invented people mimic invented seed videos."""
