"""Leave a process behind, which has no parent, session, environment or open file of the experiment."""

import os
import sys
import time

CODE = """
import time
file = open("heartbeat", "ab", buffering=0)
for _ in range(150):
    file.write(b".")
    time.sleep(0.02)
"""
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 64)
        os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", CODE], {})
    os._exit(0)
time.sleep(0.5)
