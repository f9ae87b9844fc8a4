"""Sessions become visits: partner by host, subscriber by address and time, basis."""
