"""What a command shows: the same in every command, on a terminal, in a log file and to a program.

    modes       --quiet, --json and --debug, which every command takes at any place
    loading     the first line, "loading torch ...", before a slow import
    progress    one updating line on a terminal; in a log file, a plain line from time to time
    messages    notes, and lines printed while a progress line is shown
    results     the result of a command: a text for people, or with --json one document on stdout
    closing     the last lines: what was written, and the next command

Progress, notes and closing lines go to stderr, results to stdout. In a distributed run, only one process prints.
"""
