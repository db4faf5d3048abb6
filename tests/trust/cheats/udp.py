"""Send the data away by UDP."""

import os
import socket

try:
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    out.settimeout(1)
    out.sendto(b"weights", ("127.0.0.1", int(os.environ["CHEAT_UDP"])))
    out.recv(100)
    print("network through")
except OSError as error:
    print("network", error)
