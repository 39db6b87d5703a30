"""A machine of the tests' own: a real systemd, a wheelhouse instead of a network, providers within."""
