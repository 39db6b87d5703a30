"""The programs whose time is measured: each a process of its own, so that nobody else's time is counted."""
