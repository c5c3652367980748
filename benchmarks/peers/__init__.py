"""Independent NumPy models of the domains, written from their equations."""
