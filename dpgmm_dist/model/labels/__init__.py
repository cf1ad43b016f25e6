"""Labels in many dimensions whose rows afford more than the stages: a covariance for each label.

docs/method.md, section 3.6.
"""
