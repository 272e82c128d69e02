"""Features computed by other tools (`emit encode --external NAME=PATH`), used in place of a tower's features.

formats.py    the registry of file formats; each format has its own module, and is recognized from the files
finding.py    which files under a path hold features, and in which format
tracks.py     what a format returns: the rows of one clip, with their times
matching.py   which clip each track belongs to
times.py      the times of the rows
problems.py   what cannot be used or matched, and what the user should know
features.py   combines these into a source of given features (data/given.py)
"""
