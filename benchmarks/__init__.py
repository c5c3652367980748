"""Speed and quality of the domains beside independent models: speed/, quality/, studies/, numpy_models/."""
