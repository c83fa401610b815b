"""``python -m vacancy``: the command line, for when the script ``vacancy`` is not on the PATH."""

from vacancy.jobs.commands.cli import main

main()
