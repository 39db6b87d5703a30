"""The figures that no test asserts, measured side by side with what else there is: `python -m bench`."""
