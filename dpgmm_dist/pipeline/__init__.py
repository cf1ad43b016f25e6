"""From a specification to a release: the only package that sees both sides of the gate."""
