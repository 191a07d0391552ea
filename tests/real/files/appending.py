"""A process that appends numbered units with short writes, and prints each one that is kept, until it is killed."""

import os
import sys
from pathlib import Path

from appenders import WITH_A_RESTART

if __name__ == "__main__":
    real = os.write
    (kind,) = (each for each in WITH_A_RESTART if each.__name__ == sys.argv[1])
    appender = kind(Path(sys.argv[2]))
    # So short that most kills strike in the middle of a unit.
    os.write = lambda descriptor, data: real(descriptor, bytes(data[:20]))
    for unit in range(int(sys.argv[3]), sys.maxsize):
        appender.append(unit)
        real(1, b"%d\n" % unit)
