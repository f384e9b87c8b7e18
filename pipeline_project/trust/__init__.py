"""What may be believed: signatures and approvals."""
