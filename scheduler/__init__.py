"""When jobs run and in which process: configuration files, triggers, the daemon, the command line."""


def __getattr__(name: str) -> str:
    """Read the version when it is asked for: most commands do without the modules that this takes."""
    if name != "__version__":
        raise AttributeError(name)
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        return version("promptd")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0.0.0"
