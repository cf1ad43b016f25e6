"""An empirical lower bound on epsilon: the real code, on rows made for the audit."""
