"""S17: a randomised world of shared names, keys, addresses and groups, and an oracle of who is to blame."""
