"""Ask a server of this machine through its socket file, as Docker's."""

import os
import socket

try:
    socket.socket(socket.AF_UNIX).connect(os.environ["CHEAT_SOCKET"])
    print("network through")
except OSError as error:
    print("network", error)
