"""Print what a terminal obeys: another title, another colour, a cleared screen, text that runs backwards."""

import sys

print("\x1b]0;owned\x07\x1b[2J\x1b[31m all is well \x1b[8m hidden \x9b5A \u202e txet \x07\x08\x7f")
sys.exit("ended")
