"""A parent for a daemon and its orphans, which takes note of their ends at once; run as a program.

A daemon's orphans become children of process 1, and in a container that may be one that does not care: a guest that
was killed is then a zombie for seconds, and libvirt waits for it. Here they come to this process.

Arguments: the user to run as, ``""`` for ourselves, and a command. Each line on stdin runs the command, and its process
id goes to stdout. The end of stdin kills everything that is left.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import subprocess
import sys
import threading
import time

import psutil

PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Runs, reaps and at last kills."""
    user, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    threading.Thread(target=_reap, daemon=True).start()
    entry = pwd.getpwnam(user) if user else pwd.getpwuid(os.getuid())
    groups: list[int] | None = [] if user else None
    for _ in sys.stdin:
        daemon = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, user=entry.pw_uid, group=entry.pw_gid, extra_groups=groups
        )
        print(daemon.pid, flush=True)
    while children := psutil.Process().children(recursive=True):
        for child in children:
            child.kill()
        time.sleep(0.01)


def _reap() -> None:
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.01)


if __name__ == "__main__":
    main()
