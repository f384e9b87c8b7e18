"""Audit: the ledger of actions, the dossier of the model in production, and the checks of its chain of evidence."""
