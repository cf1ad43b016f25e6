"""THE GATE: sensitivity, accounting, noise, measure."""
