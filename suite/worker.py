"""A worker process of this machine: `python -P -m suite.worker FD`, where FD is its end of a pipe to the driver.

It ends with the driver, however that ends and whatever the worker is at: hence the watch before the imports.
"""

import os
import select
import sys
import threading
from multiprocessing.connection import Connection


def main() -> None:
    """Serve the driver until it is gone."""
    pipe = Connection(int(sys.argv[1]))
    threading.Thread(target=_end_with, args=(pipe.fileno(),), daemon=True).start()
    from suite.processes import serve  # takes seconds

    serve(pipe)


def _end_with(end: int) -> None:
    """Be gone as soon as nobody holds the other end."""
    hung_up = select.poll()
    hung_up.register(end, 0)  # nothing but errors and hang-ups
    hung_up.poll()
    os._exit(1)


if __name__ == "__main__":
    main()
