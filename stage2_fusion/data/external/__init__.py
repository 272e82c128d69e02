"""Features that other tools made (`emit encode --external NAME=PATH`), in the place of those of a tower.

formats.py    the registry of file formats; each has a file of its own, and is recognized from the files themselves
finding.py    which files of a path hold features, and in which format
tracks.py     what a format gives: the rows of one clip, with their times
matching.py   which clip each of them is of
times.py      when the rows are
problems.py   what cannot be used, has no partner, or a person should know
features.py   all of them together, as a source of given features (data/given.py)
"""
