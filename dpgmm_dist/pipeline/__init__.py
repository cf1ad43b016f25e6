"""From a specification to a release: the only place that sees all sides, and the gate between."""
