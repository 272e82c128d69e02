"""Features that other tools made (`emit encode --external NAME=PATH`), in the place of those of a tower.

formats.py    the registry of file formats; each has a file of its own, and is recognized from the files themselves
tracks.py     what a format gives: the rows of one clip, with their times
matching.py   which clip each of them is of
features.py   all of them together, as a source of given features (data/given.py)
"""
