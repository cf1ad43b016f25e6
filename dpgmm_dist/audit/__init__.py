"""An empirical lower bound on epsilon: the real code, on rows made to be told apart."""
