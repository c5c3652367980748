"""What every experiment's command shares: command line, run folder, signals, errors, progress, and the session."""
