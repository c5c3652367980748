"""One-off studies behind figures in docs/domains: exact optima of small instances, published figures, simulators."""
