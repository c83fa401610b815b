"""``python -m vacancy``: the command line, where the script ``vacancy`` may not be on the PATH."""

from vacancy.jobs.commands.cli import main

main()
