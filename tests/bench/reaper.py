"""Runs a command as a node's init would: orphans of the command are reaped at once, and its pid is written to a file.

Some containers' PID 1 reaps every few seconds only, and until then a dead postmaster looks alive to PostgreSQL and to
agents that ask with kill(pid, 0): the benchmark would measure the container.

    reaper.py PIDFILE COMMAND [ARGUMENT...]
"""
import ctypes
import os
import signal
import sys

PR_SET_CHILD_SUBREAPER = 36


def main():
    pidfile, command = sys.argv[1], sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    pid = os.fork()
    if pid == 0:
        os.execvp(command[0], command)
    with open(pidfile + '.new', 'w') as file:
        file.write(str(pid))
    os.rename(pidfile + '.new', pidfile)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == '__main__':
    main()
