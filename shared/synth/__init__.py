"""A synthetic corpus of real media files with known truth: invented people react to invented seed videos."""
