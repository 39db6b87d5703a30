"""When jobs run and in which process: configuration files, triggers, the daemon, the command line."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("promptd")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"
