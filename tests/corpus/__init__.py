"""Every real capture through `inspect`. The captures stay beside the repository."""
