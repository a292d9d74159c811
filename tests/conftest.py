from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Whoever runs the suite in the background of a script has Ctrl-C ignored, also by all that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
