"""Run getmail with a fix for how it waits for a child: PROGRAM ARGUMENT...

getmail forks for each delivery and only then begins to listen for the end of
the child: on a busy machine it sometimes misses that and hangs. fsync is
skipped too: what a test delivers need not survive a power cut.
"""

import os
import runpy
import sys

sys.path.insert(0, "/usr/lib/python3/dist-packages")
from getmailcore import baseclasses


def forkchild(self, childfun, with_out=True):
    self.child = child = baseclasses.Namespace()
    child.stdout = baseclasses.TemporaryFile23()
    child.stderr = baseclasses.TemporaryFile23()
    child.childpid = os.fork()
    if child.childpid == 0:
        childfun(child.stdout, child.stderr)  # ends the process
    _, status = os.waitpid(child.childpid, 0)
    child.exitcode = os.waitstatus_to_exitcode(status)
    child.stderr.seek(0)
    child.err = child.stderr.read().strip().decode()
    child.stdout.seek(0)
    child.out = child.stdout.read().strip()
    return child


baseclasses.ForkingBase.forkchild = forkchild
os.fsync = lambda fd: None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
