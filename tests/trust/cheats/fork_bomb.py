"""Start processes without end (here: 400, so that the control harms nobody)."""

import os
import signal
import time

children = []
try:
    for _ in range(400):
        child = os.fork()
        if child == 0:
            time.sleep(20)
            os._exit(0)
        children.append(child)
        time.sleep(0.001)
    time.sleep(0.5)
    print("started", len(children))
finally:
    for child in children:
        os.kill(child, signal.SIGKILL)
