"""Providers: who they are, how they are asked, what their answers mean, who may be asked next."""
