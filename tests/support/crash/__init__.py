"""The crash harness: the real daemon, a loopback provider, `kill -9` at named points, the books after it."""
