"""What acceptance tests drive promptd with: a place of its own, the installed command, a daemon process."""
