"""The ledger: what was due, what was asked, who answered, and which credential is closed until when."""
