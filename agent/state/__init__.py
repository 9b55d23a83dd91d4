"""What is kept on disk: leases and traffic. Losing it loses comfort, never truth."""
