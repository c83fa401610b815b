"""``python -m jobs``: the command line, where the script ``vacancy`` may not be on the PATH."""

from jobs.cli import main

main()
