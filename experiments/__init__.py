"""Entry points, one a question: each trains, evaluates and reports. No mathematics in here."""
