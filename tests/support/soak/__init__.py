"""The soak: a daemon with a thousand jobs, faults around it, reloads and restarts, and its vital signs."""
