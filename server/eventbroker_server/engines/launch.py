"""Become an engine: `python -I -S launch.py <parent pid> <signal> <user id> <group id> <program> <arguments>...`

Leaves the terminal's process group (its Ctrl-C is the broker's to handle), takes on the user (-1: stay), asks the
kernel for the signal should the parent die, and turns into the program. Runs alone: it imports nothing of ours.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, signal, user, group = map(int, sys.argv[1:5])
    program = sys.argv[5:]
    os.setsid()
    os.umask(0o077)
    if user >= 0:
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)
    if sys.platform == "linux":
        # After setuid, which clears it. The parent may have died before: then nobody would ever send the signal.
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0) != 0:
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
        if os.getppid() != parent:
            sys.exit("the broker is gone")
    try:
        os.execv(program[0], program)  # noqa: S606 - that is its purpose
    except OSError as exc:
        sys.exit(f"{program[0]}: {exc.strerror}")


main()
