"""What a run is and does: definitions, targets, credentials, providers, the ledger."""
