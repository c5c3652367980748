"""From raw returns to scores, tables, figures and one page. Free of jax, so a stored run is reported at once."""
